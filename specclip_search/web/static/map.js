// The map of the space: density tiles of the server, single points where few are in view, box and lasso.
import { html, useState, useEffect, useRef, useMemo, useData, ask, askJson, base, withQuery, setQuery, go, starPath, viridis, useWidth, useDark, css, shown, words, Problem, Loading, Formats, CopyButton, objects } from './lib.js';
import { Table } from './table.js';

const TILE = 256;

export function MapPage({ query }) {
  const info = useData(withQuery('/map.json', { color: query.color }));
  const area = query.lasso ? { lasso: query.lasso } : query.box ? { box: query.box } : null;
  const chosen = useData(area ? withQuery('/map/chosen.json', area) : null);
  const over = useData(query.over ? withQuery('/sql.json', { q: `SELECT m.x, m.y FROM map m JOIN (${query.over}) r USING (source_id) LIMIT 10000` }) : null);
  const [tool, setTool] = useState('pan');
  const [point, setPoint] = useState(null);
  useEffect(() => { document.title = 'Map - explorer'; }, []);
  if (info.error) return html`<h1 tabindex="-1">Map of the space</h1><${Problem} error=${info.error}/>${query.color && html`<button type="button" onClick=${() => setQuery({ color: '' })}>Without colour</button>`}`;
  const d = info.data;
  return html`<div class="mappage"><h1 tabindex="-1">Map of the space</h1>
    ${!d ? html`<${Loading} what="Opening the map"/>` : html`
    <fieldset class="controls"><legend class="hidden">The map</legend>
      <label>Colour <select value=${query.color || ''} onChange=${e => setQuery({ color: e.target.value })}><option value="">density</option>${d.columns.map(c => html`<option value=${c}>${words(c)}</option>`)}</select></label>
      <span role="group" aria-label="Tool" class="tabs">${[['pan', 'Move'], ['box', 'Box'], ['lasso', 'Lasso']].map(([t, name]) => html`<button type="button" aria-pressed=${tool === t} onClick=${() => setTool(t)}>${name}</button>`)}</span>
      ${area && html`<button type="button" onClick=${() => setQuery({ box: '', lasso: '' })}>Clear the area</button>`}
      ${query.over && html`<button type="button" onClick=${() => setQuery({ over: '' })}>Clear the highlight</button>`}
      <${Scale} color=${d.color} points=${d.points}/></fieldset>
    <${Problem} error=${over.error}/>
    <div class="mapgrid"><${Canvas} key=${d.digest} info=${d} query=${query} tool=${tool} over=${over.data} onPoint=${setPoint}/>
    <aside class="card" aria-label="What was chosen">
      ${point && html`<${Point} row=${point}/>`}
      ${area ? html`<${Problem} error=${chosen.error}/>${chosen.data ? html`<${Chosen} data=${chosen.data} area=${area}/>` : !chosen.error && html`<${Loading} what="Looking into the area"/>`}` : !point && html`<p class="soft">Choose <b>Box</b> or <b>Lasso</b> and draw around spectra to see them as a table with their mean spectrum and SQL. Zoom in until single points show, and press one for its star. Keys: arrows move, + and − zoom, 0 shows all.</p>`}
      <${Formats} path="/map"/></aside></div>`}</div>`;
}

function Scale({ color, points }) {
  if (!color) return html`<span class="soft">${points.toLocaleString('en')} spectra; bright is dense</span>`;
  if (color.categories.length) return html`<span class="scale">${color.categories.map((c, i) => html`<span><i style=${{ background: color.colours[i] }}></i>${words(c)}</span>`)}</span>`;
  const stops = Array.from({ length: 9 }, (_, i) => `rgb(${viridis(i / 8).join(',')})`).join(',');
  return html`<span class="scale"><span>${shown(color.low)}</span><i class="bar" style=${{ background: `linear-gradient(90deg, ${stops})` }}></i><span>${shown(color.high)} ${color.label.includes('[') ? color.label.slice(color.label.lastIndexOf('[')) : ''}</span></span>`;
}

function Point({ row }) {
  const data = useData(`/map/point.json?row=${row}`);
  if (!data.data) return html`<${Problem} error=${data.error}/>`;
  const key = data.data.keys[0];
  return html`<p><a href=${base + starPath(key)}><b class="id">${key}</b></a></p>`;
}

function Chosen({ data, area }) {
  return html`<p><b>${data.chosen.toLocaleString('en')}</b> spectra${data.shown < data.chosen ? `, the first ${data.shown} shown` : ''}</p>
    ${data.mean.map(m => html`<figure class="mean"><figcaption>${m.title}: median and 16–84 % of ${m.spectra}${m.spectra < m.of ? ` of ${m.of}` : ''}</figcaption><${Mean} mean=${m}/></figure>`)}
    ${data.rows.length > 0 && html`<${Table} data=${data} columns=${['spec_id', 'modality', 'release']} caption="Spectra in the area" height="260"/>`}
    <details><summary>SQL</summary><pre class="wrap" tabindex="0" aria-label="SQL of the area"><code>${data.sql}</code></pre><${CopyButton} text=${data.sql}/> <a href=${`${base}/sql?q=${encodeURIComponent(data.sql)}`}>Open in SQL</a></details>
    <${Formats} path="/map/chosen" query=${area} label="All of them"/>`;
}

function Mean({ mean }) {
  const box = useRef(null), host = useRef(null), width = useWidth(box), dark = useDark();
  useEffect(() => {
    if (!width) return undefined;
    const plot = new uPlot({ width, height: 150, legend: { show: false }, cursor: { show: false }, scales: { x: { time: false } }, series: [{}, { stroke: 'transparent', points: { show: false } }, { stroke: 'transparent', points: { show: false } }, { stroke: css('--blue'), points: { show: false } }], bands: [{ series: [1, 2], fill: css('--band') }],
      axes: [{ stroke: css('--soft'), grid: { stroke: css('--line'), width: 0.5 }, size: 26, font: '11px system-ui' }, { stroke: css('--soft'), grid: { stroke: css('--line'), width: 0.5 }, size: 38, font: '11px system-ui' }] }, [mean.wavelength, mean.high, mean.low, mean.median], host.current);
    return () => plot.destroy();
  }, [mean, width, dark]);
  return html`<div ref=${box} role="img" aria-label=${`Median spectrum, ${mean.title}`}><div ref=${host}></div></div>`;
}

// ---- the canvas ----
function Canvas({ info, query, tool, over, onPoint }) {
  const box = useRef(null), canvas = useRef(null), state = useRef(null), width = useWidth(box), dark = useDark();
  const height = Math.max(320, Math.min(720, Math.round(width * 0.75)));
  const [x0, y0, side] = info.extent;
  if (!state.current) state.current = { view: startView(query, info), tiles: new Map(), points: null, asking: null, drag: null, path: null };
  const s = state.current;
  const color = query.color || '';
  const palette = useMemo(() => makePalette(info.color), [info.color]);
  const last = useRef({});
  last.current = { info, color, palette, dark, tool, width, height, over, query };

  const scale = () => width / s.view.span;                       // pixels a unit of the map
  const toScreen = (x, y) => [(x - s.view.x) * scale() + width / 2, height / 2 - (y - s.view.y) * scale()];
  const toMap = (px, py) => [(px - width / 2) / scale() + s.view.x, (height / 2 - py) / scale() + s.view.y];
  const draw = () => { if (!s.waiting) { s.waiting = true; requestAnimationFrame(() => { s.waiting = false; paint(); }); } };

  function tile(z, tx, ty) {
    const name = `${info.digest.slice(0, 12)}/${color}/${z}/${tx}/${ty}`;
    if (!s.tiles.has(name)) {
      if (s.tiles.size > 300) s.tiles.delete(s.tiles.keys().next().value);
      s.tiles.set(name, { raw: null });
      ask(withQuery(`/map/tiles/${z}/${tx}/${ty}`, { color })).then(r => r.arrayBuffer()).then(buffer => { s.tiles.set(name, { raw: buffer }); draw(); }).catch(() => s.tiles.delete(name));
    }
    const found = s.tiles.get(name), look = `${last.current.dark}`;
    if (found.raw && found.look !== look) { found.image = colourTile(found.raw, z, last.current); found.look = look; }
    return found.image;
  }

  function paint() {
    const c = canvas.current;
    if (!c || !width) return;
    const ratio = Math.min(2, devicePixelRatio || 1), ctx = c.getContext('2d');
    if (c.width !== width * ratio || c.height !== height * ratio) { c.width = width * ratio; c.height = height * ratio; }
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.fillStyle = css('--map'); ctx.fillRect(0, 0, width, height);
    ctx.imageSmoothingEnabled = false;
    const few = s.points && s.points.color === color && covers(s.points.box, [...toMap(0, height), ...toMap(width, 0)]);
    if (few) paintPoints(ctx); else paintTiles(ctx);
    if (over) { ctx.strokeStyle = css('--pink'); ctx.lineWidth = 1.4; for (const [x, y] of over.rows) { const [px, py] = toScreen(x, y); ctx.beginPath(); ctx.arc(px, py, 3.5, 0, 6.3); ctx.stroke(); } }
    if (query.at) { const [x, y] = query.at.split(',').map(Number), [px, py] = toScreen(x, y); ctx.strokeStyle = css('--pink'); ctx.lineWidth = 2; ctx.beginPath(); ctx.arc(px, py, 9, 0, 6.3); ctx.stroke(); }
    const area = s.path || areaOf(query);
    if (area) { ctx.strokeStyle = css('--ink'); ctx.lineWidth = 1.5; ctx.setLineDash([5, 4]); ctx.beginPath(); area.forEach(([x, y], i) => { const [px, py] = toScreen(x, y); if (i) ctx.lineTo(px, py); else ctx.moveTo(px, py); }); if (!s.path || tool === 'box') ctx.closePath(); ctx.stroke(); ctx.setLineDash([]); }
    c.dataset.layer = few ? 'points' : 'tiles';
  }

  function paintTiles(ctx) {
    const want = Math.log2(side * scale() / TILE);
    const z = Math.min(info.levels, Math.max(0, Math.round(want))), n = 2 ** z, size = side / n;
    const [left, bottom] = toMap(0, height), [right, top] = toMap(width, 0);
    for (let ty = Math.max(0, Math.floor((bottom - y0) / size)); ty <= Math.min(n - 1, Math.floor((top - y0) / size)); ty++) {
      for (let tx = Math.max(0, Math.floor((left - x0) / size)); tx <= Math.min(n - 1, Math.floor((right - x0) / size)); tx++) {
        const image = tile(z, tx, ty);
        if (!image) continue;
        const [px, py] = toScreen(x0 + tx * size, y0 + (ty + 1) * size), w = size * scale();
        ctx.drawImage(image, px, py, w + 0.5, w + 0.5);
      }
    }
  }

  function paintPoints(ctx) {
    const { box: [a, b, c, d], row, x, y, colour } = s.points;
    const size = (row.length < 3000 ? 5 : row.length < 20000 ? 3.5 : 2.5) * (width < 520 ? 0.6 : 1);
    ctx.globalAlpha = row.length < 20000 ? 0.85 : 0.6;
    for (let i = 0; i < row.length; i++) {
      const [px, py] = toScreen(a + x[i] / 65535 * (c - a), b + y[i] / 65535 * (d - b));
      if (px < -5 || py < -5 || px > width + 5 || py > height + 5) continue;
      ctx.fillStyle = colour[i] === 255 ? (color ? css1.none : css1.point) : palette.css[colour[i]];
      ctx.fillRect(px - size / 2, py - size / 2, size, size);
    }
    ctx.globalAlpha = 1;
  }
  const css1 = { none: css('--grey'), point: css('--blue') };

  // single points for what is in view, if they are few
  function lookCloser() {
    clearTimeout(s.timer);
    s.timer = setTimeout(async () => {
      const [left, bottom] = toMap(-width * 0.2, height * 1.2), [right, top] = toMap(width * 1.2, -height * 0.2);
      const box = [left, bottom, right, top];
      s.asking?.abort(); s.asking = new AbortController();
      try {
        const answer = await ask(withQuery('/map/points', { box: box.map(v => v.toPrecision(9)).join(','), color }), { signal: s.asking.signal });
        if (answer.status === 204) { s.points = null; draw(); return; }
        const buffer = await answer.arrayBuffer(), n = buffer.byteLength / 9;
        s.points = { box, color, row: new Uint32Array(buffer, 0, n), x: new Uint16Array(buffer, 4 * n, n), y: new Uint16Array(buffer, 6 * n, n), colour: new Uint8Array(buffer, 8 * n, n) };
        draw();
      } catch { /* the next movement asks again */ }
    }, 120);
  }
  function moved() {
    draw(); lookCloser();
    clearTimeout(s.saving);
    s.saving = setTimeout(() => setQuery({ view: [s.view.x, s.view.y, s.view.span].map(v => v.toPrecision(6)).join(',') }), 400);
  }
  const zoomAt = (px, py, factor) => {
    const [mx, my] = toMap(px, py);
    s.view.span = Math.min(side * 3, Math.max(side / 1e5, s.view.span * factor));
    s.view.x = mx - (px - width / 2) / scale(); s.view.y = my - (height / 2 - py) / scale();
    moved();
  };
  useEffect(() => { draw(); if (width) lookCloser(); return () => { clearTimeout(s.timer); clearTimeout(s.saving); }; }, [width, color, info, over, query.at, query.box, query.lasso, dark]);
  useEffect(() => {
    const c = canvas.current, wheel = e => { e.preventDefault(); zoomAt(e.offsetX, e.offsetY, e.deltaY < 0 ? 0.8 : 1.25); };
    c.addEventListener('wheel', wheel, { passive: false });
    return () => c.removeEventListener('wheel', wheel);
  }, [width, color, info]);

  const place = e => { const r = canvas.current.getBoundingClientRect(); return [e.clientX - r.left, e.clientY - r.top]; };
  const down = e => {
    if (e.button) return;
    canvas.current.setPointerCapture(e.pointerId);
    s.fingers = s.fingers || new Map(); s.fingers.set(e.pointerId, place(e));
    const [px, py] = place(e);
    s.drag = { px, py, x: s.view.x, y: s.view.y, far: false };
    if (tool !== 'pan') s.path = [toMap(px, py)];
  };
  const move = e => {
    if (!s.drag) return;
    const [px, py] = place(e);
    if (s.fingers?.size === 2 && s.fingers.has(e.pointerId)) {
      const before = [...s.fingers.values()]; s.fingers.set(e.pointerId, [px, py]);
      const after = [...s.fingers.values()], apart = f => Math.hypot(f[0][0] - f[1][0], f[0][1] - f[1][1]) || 1;
      s.path = null; s.drag.far = true;
      zoomAt((after[0][0] + after[1][0]) / 2, (after[0][1] + after[1][1]) / 2, apart(before) / apart(after));
      return;
    }
    if (Math.hypot(px - s.drag.px, py - s.drag.py) > 4) s.drag.far = true;
    if (tool === 'pan') { s.view.x = s.drag.x - (px - s.drag.px) / scale(); s.view.y = s.drag.y + (py - s.drag.py) / scale(); draw(); }
    else if (tool === 'box') { const [a, b] = toMap(s.drag.px, s.drag.py), [c, d] = toMap(px, py); s.path = [[a, b], [c, b], [c, d], [a, d]]; draw(); }
    else { s.path.push(toMap(px, py)); draw(); }
  };
  const up = e => {
    s.fingers?.delete(e.pointerId);
    if (!s.drag) return;
    const { far, px, py } = s.drag, path = s.path;
    s.drag = null; s.path = null;
    if (!far) { press(px, py); return; }
    if (tool === 'pan') { moved(); return; }
    const digits = v => +v.toPrecision(7);
    if (tool === 'box' && path?.length === 4) { const xs = path.map(p => p[0]), ys = path.map(p => p[1]); setQuery({ lasso: '', box: [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)].map(digits).join(',') }, true); }
    if (tool === 'lasso' && path?.length > 3) setQuery({ box: '', lasso: thinned(path, 40).flat().map(digits).join(',') }, true);
    draw();
  };
  const press = (px, py) => {
    if (!s.points) return;
    const { box: [a, b, c, d], row, x, y } = s.points;
    let best = -1, least = 144;
    for (let i = 0; i < row.length; i++) { const [qx, qy] = toScreen(a + x[i] / 65535 * (c - a), b + y[i] / 65535 * (d - b)), far = (qx - px) ** 2 + (qy - py) ** 2; if (far < least) { least = far; best = i; } }
    if (best >= 0) onPoint(row[best]);
  };
  const keys = e => {
    const step = s.view.span * 0.15, act = { ArrowLeft: () => { s.view.x -= step; }, ArrowRight: () => { s.view.x += step; }, ArrowUp: () => { s.view.y += step; }, ArrowDown: () => { s.view.y -= step; }, '+': () => { s.view.span *= 0.7; }, '=': () => { s.view.span *= 0.7; }, '-': () => { s.view.span *= 1.4; }, 0: () => { s.view = startView({}, info); } }[e.key];
    if (act && !e.ctrlKey && !e.metaKey) { e.preventDefault(); act(); moved(); }
  };
  return html`<div class="mapbox" ref=${box}><canvas ref=${canvas} class=${tool} tabindex="0" role="application" aria-label="Map of the space: arrows move, plus and minus zoom, 0 shows all" style=${{ width: `${width}px`, height: `${height}px` }}
    onPointerDown=${down} onPointerMove=${move} onPointerUp=${up} onPointerCancel=${up} onKeyDown=${keys}></canvas>
    <span class="tools"><button type="button" class="small" aria-label="Zoom in" onClick=${() => zoomAt(width / 2, height / 2, 0.6)}>+</button><button type="button" class="small" aria-label="Zoom out" onClick=${() => zoomAt(width / 2, height / 2, 1.6)}>−</button><button type="button" class="small" onClick=${() => { s.view = startView({}, info); moved(); }}>All</button></span></div>`;
}

function startView(query, info) {
  const [x0, y0, side] = info.extent, given = (query.view || '').split(',').map(Number);
  if (given.length === 3 && given.every(Number.isFinite) && given[2] > 0) return { x: given[0], y: given[1], span: given[2] };
  const at = (query.at || '').split(',').map(Number);
  if (at.length === 2 && at.every(Number.isFinite)) return { x: at[0], y: at[1], span: side / 4 };
  return { x: x0 + side / 2, y: y0 + side / 2, span: side * 1.35 };
}
const covers = (a, b) => a[0] <= b[0] && a[1] <= b[1] && a[2] >= b[2] && a[3] >= b[3];
function areaOf(query) {
  if (query.lasso) { const v = query.lasso.split(',').map(Number); return v.filter((_, i) => i % 2 === 0).map((x, i) => [x, v[2 * i + 1]]); }
  if (query.box) { const [a, b, c, d] = query.box.split(',').map(Number); return [[a, b], [c, b], [c, d], [a, d]]; }
  return null;
}
// Visvalingam & Whyatt (1993): the corner that matters least goes, until few are left
function thinned(path, most) {
  const p = path.slice();
  const size = i => { const a = p[(i + p.length - 1) % p.length], b = p[i], c = p[(i + 1) % p.length]; return Math.abs((b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])); };
  while (p.length > most) { let least = 0; for (let i = 1; i < p.length; i++) if (size(i) < size(least)) least = i; p.splice(least, 1); }
  return p;
}
function makePalette(color) {
  const rgb = Array.from({ length: 255 }, (_, i) => {
    if (color?.categories.length) { const hex = color.colours[Math.round(i / 254 * Math.max(1, color.categories.length - 1))] || '#999999'; return [1, 3, 5].map(k => parseInt(hex.slice(k, k + 2), 16)); }
    return viridis(i / 254);
  });
  return { rgb, css: rgb.map(c => `rgb(${c.join(',')})`) };
}
function colourTile(buffer, z, { palette, color, dark }) {
  const counts = new Uint16Array(buffer, 0, TILE * TILE), colours = new Uint8Array(buffer, 2 * TILE * TILE, TILE * TILE);
  const image = new ImageData(TILE, TILE), out = image.data;
  let most = 1;
  for (const c of counts) if (c > most) most = c;
  // one scale for all tiles of a level, by what a full cell of it may hold
  const top = Math.log1p(Math.max(8, most)), grey = dark ? 150 : 120;
  for (let y = 0; y < TILE; y++) for (let x = 0; x < TILE; x++) {
    const i = y * TILE + x, o = ((TILE - 1 - y) * TILE + x) * 4, n = counts[i];
    if (!n) continue;
    const strength = Math.log1p(n) / top;
    const rgb = color ? (colours[i] === 255 ? [grey, grey, grey] : palette.rgb[colours[i]]) : viridis(dark ? 0.3 + 0.7 * strength : 0.7 - 0.7 * strength);
    out[o] = rgb[0]; out[o + 1] = rgb[1]; out[o + 2] = rgb[2]; out[o + 3] = color ? 150 + 105 * strength : 255;
  }
  const made = document.createElement('canvas');
  made.width = made.height = TILE; made.getContext('2d').putImageData(image, 0, 0);
  return made;
}
