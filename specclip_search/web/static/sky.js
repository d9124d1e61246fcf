// The sky: stars in equal-area cells of a Mollweide map; a press lists the nearest stars.
import { html, useState, useEffect, useRef, useData, ask, askJson, base, setQuery, starPath, viridis, useWidth, useDark, css, Problem, Loading, Formats } from './lib.js';

const load = async (path, options) => {
  const buffer = await (await ask(path, options)).arrayBuffer(), [width, height] = new Uint32Array(buffer, 0, 2);
  return { width, height, counts: new Uint16Array(buffer, 8) };
};
const D = Math.PI / 180;
function project(lon, lat) {
  const l = ((lon + 180) % 360 + 360) % 360 - 180, phi = lat * D;
  let t = phi;
  for (let i = 0; i < 30; i++) { const slope = 2 + 2 * Math.cos(2 * t); if (slope < 1e-9) break; const step = (2 * t + Math.sin(2 * t) - Math.PI * Math.sin(phi)) / slope; t -= step; if (Math.abs(step) < 1e-9) break; }
  return [2 * l * D / Math.PI * Math.cos(t), Math.sin(t)];
}
function unproject(x, y) {
  if (Math.abs(y) > 1 || x * x / 4 + y * y > 1) return null;
  const t = Math.asin(y), phi = Math.asin((2 * t + Math.sin(2 * t)) / Math.PI), lon = Math.cos(t) < 1e-9 ? 0 : Math.PI * x / (2 * Math.cos(t));
  return [(lon / D + 360) % 360, phi / D];
}

export function SkyPage({ query }) {
  const frame = query.frame === 'galactic' ? 'galactic' : 'icrs';
  const info = useData('/sky.json'), sky = useData(`/sky/density?frame=${frame}`, load);
  const box = useRef(null), canvas = useRef(null), width = useWidth(box), dark = useDark(), height = Math.round(width / 2);
  const at = (query.at || '').split(',').map(Number), placed = at.length === 2 && at.every(Number.isFinite);
  const near = useData(placed ? `/api/resolve?q=${encodeURIComponent(`${((at[0] % 360) + 360) % 360} ${at[1]}`)}` : null);
  useEffect(() => { document.title = 'Sky - explorer'; }, []);
  useEffect(() => {
    if (!sky.data || !width) return;
    const c = canvas.current, ratio = Math.min(2, devicePixelRatio || 1), ctx = c.getContext('2d'), { width: w, height: h, counts } = sky.data;
    c.width = width * ratio; c.height = height * ratio; ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.fillStyle = css('--map'); ctx.beginPath(); ctx.ellipse(width / 2, height / 2, width / 2, height / 2, 0, 0, 6.2832); ctx.fill();
    const image = new ImageData(w, h);
    let most = 1; for (const n of counts) if (n > most) most = n;
    counts.forEach((n, i) => { if (!n) return; const s = Math.log1p(n) / Math.log1p(Math.max(4, most)), rgb = viridis(dark ? 0.35 + 0.65 * s : 0.65 - 0.65 * s); image.data.set([...rgb, 255], 4 * i); });
    const made = document.createElement('canvas'); made.width = w; made.height = h; made.getContext('2d').putImageData(image, 0, 0);
    ctx.imageSmoothingEnabled = false; ctx.drawImage(made, 0, 0, width, height);
    ctx.strokeStyle = css('--line'); ctx.lineWidth = 0.8; ctx.fillStyle = css('--soft'); ctx.font = '11px system-ui'; ctx.textAlign = 'center';
    const toScreen = (lon, lat) => { const [x, y] = project(lon, lat); return [(1 - x / 2) / 2 * width, (1 - y) / 2 * height]; };
    for (let lat = -60; lat <= 60; lat += 30) { ctx.beginPath(); for (let l = -179.99; l <= 180; l += 3) { const p = toScreen(l, lat); if (l < -179) ctx.moveTo(...p); else ctx.lineTo(...p); } ctx.stroke(); const p = toScreen(0, lat); ctx.fillText(`${lat > 0 ? '+' : ''}${lat}°`, p[0] + 14, p[1] - 3); }
    for (let lon = -180; lon <= 180; lon += 30) { ctx.beginPath(); const l = Math.abs(lon) === 180 ? Math.sign(lon) * 179.99 : lon; for (let lat = -90; lat <= 90; lat += 3) { const p = toScreen(l, lat); if (lat === -90) ctx.moveTo(...p); else ctx.lineTo(...p); } ctx.stroke(); if (lon % 60 === 0 && Math.abs(lon) < 180) { const p = toScreen(lon, 0); ctx.fillText(frame === 'icrs' ? `${((lon + 360) % 360) / 15}h` : `${(lon + 360) % 360}°`, p[0], p[1] + 13); } }
    if (placed && frame === 'icrs') { const p = toScreen(at[0], at[1]); ctx.strokeStyle = css('--pink'); ctx.lineWidth = 2; ctx.beginPath(); ctx.arc(...p, 8, 0, 6.3); ctx.stroke(); }
  }, [sky.data, width, dark, query.at, frame]);
  const press = e => {
    const r = canvas.current.getBoundingClientRect(), found = unproject((1 - 2 * (e.clientX - r.left) / width) * 2, 1 - 2 * (e.clientY - r.top) / height);
    if (found && frame === 'icrs') setQuery({ at: `${found[0].toFixed(3)},${found[1].toFixed(3)}` });
  };
  const stars = near.data?.near || [];
  return html`<h1 tabindex="-1">Sky</h1><${Problem} error=${info.error || sky.error}/>
    <fieldset class="controls"><legend class="hidden">The sky</legend><label>Frame <select value=${frame} onChange=${e => setQuery({ frame: e.target.value === 'icrs' ? '' : e.target.value })}><option value="icrs">equatorial (ICRS)</option><option value="galactic">galactic</option></select></label>
      ${info.data && html`<span class="soft">${info.data.stars.toLocaleString('en')} stars; at most ${info.data.densest} in ${info.data.cell_sq_deg} square degrees</span>`}</fieldset>
    <div class="mapgrid"><div ref=${box}><canvas ref=${canvas} class="sky" role="img" aria-label="Density of the atlas's stars on the sky, Mollweide projection" style=${{ width: `${width}px`, height: `${height}px` }} onClick=${press}></canvas>${!sky.data && !sky.error && html`<${Loading}/>`}</div>
    <aside class="card" aria-label="Near a place"><form onSubmit=${e => { e.preventDefault(); setQuery({ at: e.target.place.value.trim().split(/[\s,]+/).join(',') }); }}><label>Place <input name="place" placeholder="RA Dec, degrees" value=${placed ? at.join(' ') : ''}/></label> <button>Go</button></form>
      <${Problem} error=${near.error}/>
      ${placed ? html`<p><a href=${`https://aladin.cds.unistra.fr/AladinLite/?target=${encodeURIComponent(at.join(' '))}&fov=0.5`} target="_blank" rel="noopener noreferrer">Open this place in Aladin Lite (CDS)</a></p>${stars.length ? html`<ol class="plainlist">${stars.map(s => html`<li><a class="id" href=${base + starPath(s.key)}>${s.key}</a> <span class="soft">${s.separation_arcsec.toFixed(0)}″</span></li>`)}</ol>` : near.data && html`<p>No star of the atlas lies within a degree.</p>`}` : html`<p class="soft">Press a place on the sky, or write one, to list the nearest stars.</p>`}
      <${Formats} path="/sky"/></aside></div>`;
}
