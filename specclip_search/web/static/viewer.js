// Spectra of one star: flux above, residual below, one panel an instrument. uPlot draws.
import { html, useEffect, useRef, useMemo, useState, useWidth, useDark, css, setQuery, shown, words, CopyButton } from './lib.js';

const SPEED = 299792.458;
// vacuum Angstrom: NIST Atomic Spectra Database; molecular bands by their heads
const LINES = [
  ['Ca K', 3934.78], ['Ca H', 3969.59], ['Hδ', 4102.89], ['Sr II', 4078.86], ['Ca I', 4227.92], ['CH', 4305], ['Hγ', 4341.68],
  ['He I', 4472.73], ['Ba II', 4555.31], ['He II', 4687.02], ['Hβ', 4862.68], ['Mg b', 5168.76], ['', 5174.12], ['', 5185.05],
  ['Fe I', 5271], ['Na D', 5891.58], ['', 5897.56], ['Hα', 6564.61], ['Li I', 6709.61], ['O I', 7773.9], ['Ca II', 8500.36], ['', 8544.44], ['', 8664.52],
];

export function unpackPanels(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const numbers = new Float32Array(buffer, 4 + length);
  for (const panel of head.panels) {
    panel.data = {};
    for (const [name, [from, count]] of Object.entries(panel.arrays)) panel.data[name] = numbers.subarray(from, from + count);
  }
  return head.panels;
}

// Ciddor (1996): refractive index of standard air, wavelengths in Angstrom
function toAir(w) {
  const s = (1e4 / w) ** 2;
  return w / (1 + 0.05792105 / (238.0185 - s) + 0.00167917 / (57.362 - s));
}

function smoothed(values, pixels) {
  if (pixels < 2) return Array.from(values, v => (Number.isFinite(v) ? v : null));
  const half = (pixels - 1) >> 1, out = new Array(values.length);
  let sum = 0, count = 0;
  const add = (i, sign) => { const v = values[i]; if (i >= 0 && i < values.length && Number.isFinite(v)) { sum += sign * v; count += sign; } };
  for (let i = 0; i < half; i++) add(i, 1);
  for (let i = 0; i < values.length; i++) { add(i + half, 1); add(i - half - 1, -1); out[i] = count > 0 && Number.isFinite(values[i]) ? sum / count : null; }
  return out;
}

const greek = name => name.replace(/^H(alpha|beta|gamma|delta)/, (_, l) => `H${{ alpha: 'α', beta: 'β', gamma: 'γ', delta: 'δ' }[l]}`);
// the windows that are farthest off the prediction
const telling = panel => panel.windows.filter(w => w.sigma !== null && Math.abs(w.sigma) >= 3.5).sort((a, b) => Math.abs(b.sigma) - Math.abs(a.sigma)).slice(0, 6);

// all of the viewer's state from the address
export function viewerOptions(query) {
  return {
    unit: query.unit === 'nm' ? 'nm' : query.unit === 'A' ? 'Angstrom' : '', air: query.air === '1', smooth: Math.min(15, Math.max(1, +query.smooth || 1)),
    rest: query.rest === '1', velocity: Number.isFinite(+query.v) ? +query.v : 0, lines: query.lines !== '0', mark: query.mark || '',
    hide: new Set((query.hide || '').split(',').filter(Boolean)),
  };
}

const NAMES = { flux: 'this star', predicted: 'from the other instrument', median: 'neighbours: median', band: 'neighbours: 16–84 %', error: 'error (1 σ)' };

export function ViewerControls({ options, found, velocity }) {
  const [list, setList] = useState('');
  const toggle = name => { const hide = new Set(options.hide); if (!hide.delete(name)) hide.add(name); setQuery({ hide: [...hide].join(',') }); };
  const read = async event => {
    const file = event.target.files[0];
    if (!file || file.size > 1e6) return;
    const values = (await file.text()).split(/\r?\n/).map(line => line.split(/[,;\t]/)).filter(p => Number.isFinite(parseFloat(p[0]))).slice(0, 60);
    setQuery({ mark: values.map(p => (p[1] ? `${parseFloat(p[0])} ${p[1].trim().slice(0, 12)}` : parseFloat(p[0]))).join(',') });
    setList(file.name);
  };
  return html`<fieldset class="controls"><legend class="hidden">How spectra are shown</legend>
    <label>Unit <select value=${options.unit} onChange=${e => setQuery({ unit: { Angstrom: 'A', nm: 'nm' }[e.target.value] || '' })}><option value="">as observed</option><option value="Angstrom">Å</option><option value="nm">nm</option></select></label>
    <label>Medium <select value=${options.air ? '1' : ''} onChange=${e => setQuery({ air: e.target.value })}><option value="">vacuum</option><option value="1">air</option></select></label>
    <label>Frame <select value=${options.rest ? '1' : ''} onChange=${e => setQuery({ rest: e.target.value, v: e.target.value && !options.velocity && velocity ? velocity.toFixed(1) : options.velocity || '' })}><option value="">observed</option><option value="1">rest</option></select></label>
    ${options.rest && html`<label>RV <input type="number" step="0.1" value=${options.velocity} onChange=${e => setQuery({ v: e.target.value })} size="7"/> km/s</label>`}
    <label>Smooth <input type="range" min="1" max="15" step="2" value=${options.smooth} onInput=${e => setQuery({ smooth: e.target.value === '1' ? '' : e.target.value })}/> <output>${options.smooth} px</output></label>
    <label><input type="checkbox" checked=${options.lines} onChange=${e => setQuery({ lines: e.target.checked ? '' : '0' })}/> lines</label>
    <label>Mark <input type="text" placeholder="4861.3, 5183.6 Mg" value=${options.mark} onChange=${e => setQuery({ mark: e.target.value })} size="14" title="Wavelengths in Angstrom, vacuum, each with a name if you like"/></label>
    <label class="file" title="CSV: wavelength in vacuum Angstrom, name"><span class="button">Line list …</span><input type="file" accept=".csv,.txt" onChange=${read}/>${list && html` ${list}`}</label>
    <span class="curves">${Object.keys(NAMES).filter(n => found.has(n)).map(name => html`<button type="button" class=${`chip ${name}`} aria-pressed=${!options.hide.has(name)} onClick=${() => toggle(name)}>${NAMES[name]}</button>`)}</span>
  </fieldset>`;
}

export function Panel({ panel, options, extra = [], height = 300 }) {
  const box = useRef(null), host = useRef(null), lower = useRef(null), plots = useRef([]);
  const width = useWidth(box), dark = useDark();
  const unit = options.unit || panel.unit;
  const shift = options.rest ? 1 + options.velocity / SPEED : 1;
  const axis = useMemo(() => {
    const scale = (panel.unit === 'nm' ? 10 : 1);
    return w => { let a = w * scale / shift; if (options.air) a = toAir(a); return unit === 'nm' ? a / 10 : a; };
  }, [panel, unit, options.air, shift]);
  const on = name => !options.hide.has(name);
  const key = JSON.stringify([panel.name, panel.key, unit, options.air, options.smooth, shift, options.lines, options.mark, [...options.hide], dark, extra.map(e => e.key)]);
  useEffect(() => {
    if (!width || !host.current) return undefined;
    plots.current.forEach(plot => plot.destroy());
    plots.current = draw({ host: host.current, lower: lower.current, panel, axis, options, on, extra, width, height, unit, shift });
    return () => { plots.current.forEach(plot => plot.destroy()); plots.current = []; };
  }, [key, width > 0, panel]);
  useEffect(() => { plots.current.forEach(plot => plot.setSize({ width, height: plot.height })); }, [width]);
  const zoom = factor => plots.current[0]?.zoomBy(factor);
  const told = telling(panel);
  const keys = { '+': 0.6, '=': 0.6, '-': 1.7, ArrowLeft: 'left', ArrowRight: 'right', 0: 'reset', Home: 'reset' };
  const press = event => {
    const act = keys[event.key], plot = plots.current[0];
    if (act === undefined || !plot || event.ctrlKey || event.metaKey) return;
    event.preventDefault(); event.stopPropagation();
    if (typeof act === 'number') plot.zoomBy(act); else if (act === 'reset') plot.resetZoom(); else plot.panBy(act === 'left' ? -0.2 : 0.2);
  };
  return html`<figure class="panel" aria-label=${panel.title}>
    <figcaption><strong>${panel.title}</strong>${panel.simulated && html` <span class="tag">simulated</span>`}${!panel.data.flux && html` <span class="tag">predicted only</span>`}
      <span class="tools"><button type="button" class="small" onClick=${() => zoom(0.5)} aria-label="Zoom in">+</button><button type="button" class="small" onClick=${() => zoom(2)} aria-label="Zoom out">−</button><button type="button" class="small" onClick=${() => plots.current[0]?.resetZoom()}>Reset</button></span></figcaption>
    <div class="plot" ref=${box} tabindex="0" role="img" onKeyDown=${press}
      aria-label=${`${panel.title}, ${unit}. ${told.length ? `Largest residuals: ${told.map(w => `${w.name} ${shown(w.sigma)} sigma`).join(', ')}.` : 'No window is off by 3.5 sigma or more.'} Keys: plus and minus zoom, arrows move, 0 shows all.`}>
      <div ref=${host}></div><div ref=${lower}></div></div>
    ${told.length > 0 && html`<p class="telling">Off the prediction: ${told.map((w, i) => html`${i ? ', ' : ''}<span title=${w.note}>${greek(w.name)} <b>${w.sigma > 0 ? '+' : '−'}${Math.abs(w.sigma).toFixed(1)} σ</b></span>`)}</p>`}
    ${panel.notes.map(note => html`<p class="note">${note}</p>`)}
  </figure>`;
}

function marksOf(options) {
  return options.mark.split(',').map(text => text.trim().match(/^(\d+(?:\.\d*)?)\s*(.*)$/)).filter(Boolean).map(m => [m[2] || m[1], +m[1]]);
}

function draw({ host, lower, panel, axis, options, on, extra, width, height, unit, shift }) {
  const d = panel.data, x = Array.from(d.wavelength, axis);
  const ink = css('--ink'), faint = css('--line'), soft = css('--soft');
  const colours = { flux: css('--blue'), predicted: css('--orange'), median: css('--grey'), extra: css('--pink') };
  const series = [{ label: unit === 'nm' ? 'λ nm' : 'λ Å', value: (u, v) => (v === null ? '–' : v.toFixed(unit === 'nm' ? 2 : 1)) }];
  const data = [x], bands = [];
  const add = (label, values, colour, more = {}) => { series.push({ label, stroke: colour, width: 1.2, points: { show: false }, value: (u, v) => (v === null || v === undefined ? '–' : v.toPrecision(4)), ...more }); data.push(values); return data.length - 1; };
  if (d.low && on('band')) {
    const high = add('84 %', smoothed(d.high, options.smooth), 'transparent', { width: 0 }), low = add('16 %', smoothed(d.low, options.smooth), 'transparent', { width: 0 });
    bands.push({ series: [high, low], fill: css('--band') });
  }
  if (d.flux && d.error && on('error')) {
    const flux = smoothed(d.flux, options.smooth), root = Math.sqrt(options.smooth);
    const error = Array.from(d.error, v => (Number.isFinite(v) ? v / root : null));
    const up = add('+1 σ', flux.map((v, i) => (v === null || error[i] === null ? null : v + error[i])), 'transparent', { width: 0 });
    const down = add('−1 σ', flux.map((v, i) => (v === null || error[i] === null ? null : v - error[i])), 'transparent', { width: 0 });
    bands.push({ series: [up, down], fill: css('--errorband') });
  }
  if (d.median && on('median')) add('neighbours', smoothed(d.median, options.smooth), colours.median);
  if (d.predicted && on('predicted')) add('predicted', smoothed(d.predicted, options.smooth), colours.predicted, { width: 1.6 });
  for (const one of extra) if (one.panel?.data.flux?.length === x.length) add(one.key, smoothed(one.panel.data.flux, options.smooth), colours.extra);
  if (d.flux && on('flux')) add('this star', smoothed(d.flux, options.smooth), colours.flux, { width: 1.3 });
  const lines = [...(options.lines ? LINES.map(([n, w]) => [n, w, false]) : []), ...marksOf(options).map(([n, w]) => [n, w, true])];
  const at = w => { const a = options.air ? toAir(w) : w; return unit === 'nm' ? a / 10 : a; };
  // lines lie at rest; in the observed frame of a star that moves they lie elsewhere
  const moved = options.rest ? 1 : 1 + options.velocity / SPEED;
  const range = yRange(data, series);
  const edges = [x[0], x[x.length - 1]];
  const shades = (u, names) => {
    const { ctx, bbox } = u;
    ctx.save(); ctx.beginPath(); ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height); ctx.clip();
    for (const w of telling(panel)) {
      const lo = u.valToPos(axis(w.lo), 'x', true), hi = u.valToPos(axis(w.hi), 'x', true);
      ctx.fillStyle = css('--shade'); ctx.fillRect(lo, bbox.top, Math.max(hi - lo, 2), bbox.height);
    }
    if (names) {
      const ratio = devicePixelRatio || 1;
      ctx.font = `${11 * ratio}px system-ui, sans-serif`; ctx.textAlign = 'center'; ctx.textBaseline = 'top';
      const ends = [-1e9, -1e9, -1e9];
      for (const [name, w, mine] of lines) {
        const px = u.valToPos(at(w * moved), 'x', true);
        if (px < bbox.left || px > bbox.left + bbox.width) continue;
        ctx.strokeStyle = mine ? colours.extra : faint; ctx.lineWidth = ratio; ctx.setLineDash([3 * ratio, 3 * ratio]);
        ctx.beginPath(); ctx.moveTo(px, bbox.top); ctx.lineTo(px, bbox.top + bbox.height); ctx.stroke(); ctx.setLineDash([]);
        if (!name) continue;
        const half = ctx.measureText(name).width / 2 + 3 * ratio, level = ends.findIndex(end => px - half > end);
        if (level < 0) continue;
        ends[level] = px + half; ctx.fillStyle = mine ? colours.extra : soft; ctx.fillText(name, px, bbox.top + (2 + 13 * level) * ratio);
      }
    }
    ctx.restore();
  };
  const narrow = width < 520;
  const sync = `${panel.name}-${panel.key}`;
  const axes = (label, showX) => [
    { stroke: soft, grid: { stroke: faint, width: 0.5 }, ticks: { stroke: faint }, label: showX ? `${options.rest ? 'rest ' : ''}wavelength (${options.air ? 'air' : 'vacuum'}), ${unit === 'nm' ? 'nm' : 'Å'}` : undefined, labelSize: 20, size: showX ? 34 : 18, values: showX ? undefined : u => [], font: '11px system-ui', labelFont: '12px system-ui', space: narrow ? 60 : 80 },
    { stroke: soft, grid: { stroke: faint, width: 0.5 }, ticks: { stroke: faint }, label: narrow ? undefined : label, labelSize: 18, size: narrow ? 40 : 46, space: 26, font: '11px system-ui', labelFont: '12px system-ui' },
  ];
  const both = [];
  const setX = (min, max) => {
    const span = edges[1] - edges[0], least = span / 2000;
    if (max - min < least) { const c = (min + max) / 2; min = c - least / 2; max = c + least / 2; }
    if (max - min >= span) { [min, max] = edges; } else if (min < edges[0]) { max += edges[0] - min; min = edges[0]; } else if (max > edges[1]) { min -= max - edges[1]; max = edges[1]; }
    both.forEach(plot => plot.setScale('x', { min, max }));
  };
  const limits = u => [u.scales.x.min, u.scales.x.max];
  const moves = { hooks: { ready: [u => {
    const { over } = u;
    over.addEventListener('wheel', event => {
      // the page scrolls unless the plot was chosen or Ctrl is held
      if (!event.ctrlKey && !u.root.closest('.plot').contains(document.activeElement)) return;
      event.preventDefault();
      const [lo, hi] = limits(u), here = u.posToVal(event.offsetX, 'x'), f = event.deltaY < 0 ? 0.8 : 1.25;
      setX(here - (here - lo) * f, here + (hi - here) * f);
    }, { passive: false });
    over.addEventListener('pointerdown', event => {
      if (event.button) return;
      u.root.closest('.plot').focus({ preventScroll: true });
      const from = event.clientX, [lo, hi] = limits(u), per = (hi - lo) / over.clientWidth;
      const drag = e => setX(lo - (e.clientX - from) * per, hi - (e.clientX - from) * per);
      const end = () => { removeEventListener('pointermove', drag); removeEventListener('pointerup', end); removeEventListener('pointercancel', end); };
      addEventListener('pointermove', drag); addEventListener('pointerup', end); addEventListener('pointercancel', end);
    });
    over.addEventListener('dblclick', () => setX(...edges));
  }] } };
  const common = { width, cursor: { sync: { key: sync, setSeries: false }, drag: { x: false, y: false }, points: { size: 5 } }, plugins: [moves] };
  const flux = new uPlot({ ...common, height: height, legend: { show: !narrow, live: true }, series: series, bands, scales: { x: { time: false, range: (u, a, b) => [a ?? edges[0], b ?? edges[1]] }, y: { range: () => range } },
    axes: axes(panel.flux, !d.residual), hooks: { drawClear: [u => shades(u, false)], draw: [u => shades(u, true)] } }, data, host);
  both.push(flux);
  if (d.residual) {
    const r = smoothed(d.residual, options.smooth), sorted = r.filter(v => v !== null).map(Math.abs).sort((a, b) => a - b);
    const most = Math.max(4, (sorted[Math.floor(sorted.length * 0.995)] || 4) * 1.15);
    both.push(new uPlot({ ...common, height: 140, legend: { show: false }, series: [{}, { stroke: ink, width: 0.8, points: { show: false } }],
      scales: { x: { time: false, range: (u, a, b) => [a ?? edges[0], b ?? edges[1]] }, y: { range: () => [-most, most] } }, axes: axes('residual, σ', true),
      hooks: { drawClear: [u => shades(u, false)], draw: [u => { const { ctx, bbox } = u; ctx.save(); ctx.strokeStyle = soft; ctx.setLineDash([4, 4]); for (const v of [-3, 3]) { const y = u.valToPos(v, 'y', true); if (y > bbox.top && y < bbox.top + bbox.height) { ctx.beginPath(); ctx.moveTo(bbox.left, y); ctx.lineTo(bbox.left + bbox.width, y); ctx.stroke(); } } ctx.restore(); }] } }, [x, r], lower));
  } else lower.textContent = '';
  flux.zoomBy = factor => { const [lo, hi] = limits(flux), c = (lo + hi) / 2; setX(c - (c - lo) * factor, c + (hi - c) * factor); };
  flux.panBy = part => { const [lo, hi] = limits(flux), step = (hi - lo) * part; setX(lo + step, hi + step); };
  flux.resetZoom = () => setX(...edges);
  return both;
}

// the noisy ends and lone pixels do not decide
function yRange(data, series) {
  let low = Infinity, high = -Infinity;
  for (let i = 1; i < data.length; i++) {
    if (series[i].width === 0) continue;
    const cut = Math.floor(data[i].length / 50), values = data[i].slice(cut, data[i].length - cut).filter(v => v !== null).sort((a, b) => a - b);
    if (!values.length) continue;
    low = Math.min(low, values[Math.floor(values.length * 0.003)]); high = Math.max(high, values[Math.floor(values.length * 0.997)]);
  }
  if (!(high > low)) { low = Number.isFinite(low) ? low - 0.5 : 0; high = low + 1; }
  const room = high - low;
  return [low - 0.08 * room, high + 0.24 * room];
}

// a small picture of one spectrum, over another one in grey
export function Spark({ flux, over, label }) {
  const canvas = useRef(null), dark = useDark();
  useEffect(() => {
    const c = canvas.current, ratio = devicePixelRatio || 1, w = c.clientWidth, h = c.clientHeight;
    c.width = w * ratio; c.height = h * ratio;
    const ctx = c.getContext('2d');
    ctx.scale(ratio, ratio); ctx.clearRect(0, 0, w, h);
    const all = [over, flux].filter(Boolean), sorted = all.flatMap(v => Array.from(v)).filter(Number.isFinite).sort((a, b) => a - b);
    if (!sorted.length) return;
    const lo = sorted[Math.floor(sorted.length * 0.005)], hi = sorted[Math.ceil(sorted.length * 0.995) - 1], room = hi - lo || 1;
    for (const [values, colour] of [[over, css('--grey')], [flux, css('--blue')]]) {
      if (!values) continue;
      ctx.strokeStyle = colour; ctx.lineWidth = 1; ctx.beginPath();
      values.forEach((v, i) => { const x = i / (values.length - 1) * w, y = h - 2 - (Math.min(Math.max(v, lo), hi) - lo) / room * (h - 4); if (i) ctx.lineTo(x, y); else ctx.moveTo(x, y); });
      ctx.stroke();
    }
  }, [flux, over, dark]);
  return html`<canvas class="spark" ref=${canvas} role="img" aria-label=${label}></canvas>`;
}
