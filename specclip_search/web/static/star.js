// The page of one star: spectra, neighbours, anomaly, metal-poor evidence, labels, links, verdict.
import { html, useState, useEffect, useMemo, useRef, useData, ask, askJson, post, base, starPath, words, shown, objects, Problem, Loading, CopyButton, Formats, useKeys, setQuery } from './lib.js';
import { Table } from './table.js';
import { Panel, Spark, ViewerControls, unpackPanels, viewerOptions } from './viewer.js';

export const VERDICTS = [['1', 'interesting'], ['2', 'artifact'], ['3', 'normal']];
export const loadPanels = async (path, options) => unpackPanels(await (await ask(path, options)).arrayBuffer());
const own = new Map();
// a neighbour's own spectra, asked for once
export function ownPanels(key) {
  if (!own.has(key)) {
    if (own.size > 200) own.delete(own.keys().next().value);
    own.set(key, loadPanels(`${starPath(key)}/spectra?own=1`).catch(error => { own.delete(key); throw error; }));
  }
  return own.get(key);
}
const panelOf = (panels, name, key) => panels.find(p => p.name === name && (!key || p.key === key)) || panels.find(p => p.name === name);

export function StarView({ starKey, query, me, embedded = false }) {
  const star = useData(`${starPath(starKey)}.json`);
  const spectra = useData(`${starPath(starKey)}/spectra`, loadPanels);
  const near = useData(`${starPath(starKey)}/neighbours.json?k=12`);
  const [hover, setHover] = useState(null);
  const [pinned, setPinned] = useState([]);
  useEffect(() => { setPinned([]); setHover(null); }, [starKey]);
  useEffect(() => { if (!embedded && star.data) document.title = `${star.data.title} - explorer`; }, [star.data, embedded]);
  const rv = useMemo(() => star.data?.labels.find(l => l.label === 'rv')?.value ?? null, [star.data]);
  const options = viewerOptions({ ...query, v: query.v ?? (rv ?? 0) });
  const extra = [...pinned, ...(hover && !pinned.some(p => p.key === hover.key) ? [hover] : [])];
  const overlay = async key => { if (!key) { setHover(null); return; } try { setHover({ key, panels: await ownPanels(key) }); } catch { setHover(null); } };
  const pin = async key => {
    if (pinned.some(p => p.key === key)) setPinned(pinned.filter(p => p.key !== key));
    else setPinned([...pinned.slice(-3), { key, panels: await ownPanels(key) }]);
  };
  if (star.error) return html`<${Problem} error=${star.error}/>`;
  if (!star.data) return html`<${Loading} what="Opening the star"/>`;
  const d = star.data, found = new Set((spectra.data || []).flatMap(p => Object.keys(p.data)));
  if (found.has('low')) found.add('band');
  const H = embedded ? 'h2' : 'h1', H2 = embedded ? 'h3' : 'h2';
  return html`<article class="star">
    <header class="starhead"><${H} tabindex="-1">${d.title}</${H}>
      <p class="keys">${Object.entries(d.keys).map(([name, key]) => html`<span class="nowrap" key=${name}><span class="soft">${words(name)}</span> <code>${key}</code> <${CopyButton} text=${key}/></span> `)}
        ${d.ra !== null && html`<span class="nowrap"><span class="soft">ICRS</span> ${d.ra.toFixed(5)} ${d.dec >= 0 ? '+' : ''}${d.dec.toFixed(5)}°</span>`}</p>
      <p class="links">${d.links.map(l => html`<a href=${l.url} target="_blank" rel="noopener noreferrer">${l.name}</a> `)}
        ${d.map && html`<a href=${`${base}/map?at=${d.map[0].toFixed(4)},${d.map[1].toFixed(4)}`}>on the map</a> `}${d.ra !== null && html`<a href=${`${base}/sky?at=${d.ra.toFixed(3)},${d.dec.toFixed(3)}`}>on the sky</a>`}${embedded && html` <a href=${base + starPath(starKey)}>own page</a>`}</p>
    </header>
    ${d.anomaly && !embedded && html`<${Verdict} queue="anomalies" row=${d.anomaly.row} me=${me} standing=${d.anomaly.verdict}/>`}
    <section aria-label="Spectra"><${H2}>Spectra</${H2}>
      <${ViewerControls} options=${options} found=${found} velocity=${rv}/>
      <${Problem} error=${spectra.error}/>${!spectra.data && !spectra.error && html`<${Loading} what="Reading the spectra"/>`}
      ${(spectra.data || []).map(panel => html`<${Panel} key=${panel.name} panel=${panel} options=${options}
        extra=${extra.map(e => ({ key: e.key, panel: panelOf(e.panels, panel.name, e.key) })).filter(e => e.panel)}/>`)}
    </section>
    <div class="columns">
      ${d.anomaly && html`<${Anomaly} anomaly=${d.anomaly} level=${H2}/>`}
      ${d.emp && html`<${Emp} emp=${d.emp} level=${H2}/>`}
      <${Labels} labels=${d.labels} spectra=${d.spectra} visits=${d.visits} level=${H2}/>
    </div>
    <section aria-label="Neighbours"><${H2}>Nearest spectra</${H2}>
      <${Problem} error=${near.error}/>${near.data ? html`<${Neighbours} data=${near.data} panels=${spectra.data} overlay=${overlay} pin=${pin} pinned=${pinned} query=${query}/>` : !near.error && html`<${Loading} what="Searching"/>`}
    </section>
    <section class="copies" aria-label="The same elsewhere"><${H2}>The same elsewhere</${H2}>
      ${Object.entries(d.copy).map(([name, text]) => html`<div class="copy"><span>${name}</span><pre tabindex="0" aria-label=${name}><code>${text}</code></pre><${CopyButton} text=${text}/></div>`)}
      <p>${html`<a href=${`${base}/sql?q=${encodeURIComponent(d.copy.SQL)}`}>Open the SQL</a>`}</p>
      <${Formats} path=${starPath(starKey)}/>
      <p class="formats">Tables as CSV: ${d.tables.map((t, i) => html`${i ? ' · ' : ''}<a href=${`${base}${starPath(starKey)}.csv?table=${t}`} download>${t}</a>`)}</p>
    </section></article>`;
}

export function Verdict({ queue, row, me, standing, onDone }) {
  const [state, set] = useState({ verdict: standing, error: null, note: '' });
  useEffect(() => set({ verdict: standing, error: null, note: '' }), [row.lrs_spec_id, row.xp_spec_id, standing]);
  const give = async verdict => {
    try {
      const answer = await post('/verdict', { queue, lrs_spec_id: row.lrs_spec_id, xp_spec_id: row.xp_spec_id, verdict, note: state.note });
      set({ verdict: answer.verdict, error: null, note: state.note, by: answer.judged_by }); onDone?.(answer);
    } catch (error) { set({ ...state, error }); }
  };
  useKeys({ 1: () => give('interesting'), 2: () => give('artifact'), 3: () => give('normal') }, me?.judges && !onDone);
  if (!me?.judges) return standing ? html`<p class="verdict">Judged <b>${standing}</b></p>` : null;
  return html`<div class="verdict" role="group" aria-label="Your verdict">${VERDICTS.map(([k, name]) => html`<button type="button" class=${`v ${name}`} aria-pressed=${state.verdict === name} onClick=${() => give(state.verdict === name ? '' : name)}><kbd>${k}</kbd> ${name}</button>`)}
    <input type="text" aria-label="Note" placeholder="note (kept with the next verdict)" maxlength="1000" value=${state.note} onInput=${e => set({ ...state, note: e.target.value })}/>
    ${state.by && html`<span class="soft">${state.by}</span>`}<${Problem} error=${state.error}/></div>`;
}

function Anomaly({ anomaly, level: H }) {
  const { row, z } = anomaly, most = Math.max(8, ...z.map(one => Math.abs(one.z)));
  return html`<section class="card" aria-label="Anomaly"><${H}>Anomaly</${H}>
    <p class="figures"><b>${row.score.toFixed(2)}</b> score <b>${shown(row.p_value)}</b> p <b>${shown(row.q_value)}</b> q ${row.kind && html`<span class=${`tag ${row.kind}`}>${words(row.kind)}</span>`}</p>
    <p class="reason">${row.reason || 'Nothing stands out (p ≥ 0.01): no reason was worked out.'}</p>
    <table class="bars"><caption class="hidden">How odd, by quantity, in robust sigma</caption><tbody>${z.slice(0, 10).map(one => html`<tr title=${one.description}><th scope="row">${one.name}</th><td><meter min="0" max=${most} value=${Math.max(0, one.z)} aria-label=${`${one.z.toFixed(1)} sigma`}></meter></td><td class="number">${one.z.toFixed(1)} σ</td></tr>`)}</tbody></table></section>`;
}

function Emp({ emp, level: H }) {
  const { row } = emp, flags = (row.flags || '').split(' ').filter(Boolean);
  return html`<section class="card" aria-label="Metal-poor evidence"><${H}>Metal-poor?</${H}>
    <p class="figures"><b>${shown(row.probability)}</b> probability ${row.feh !== null && html`<b>${row.feh.toFixed(2)} ± ${row.feh_err === null ? '?' : row.feh_err.toFixed(2)}</b> [Fe/H]`}</p>
    <p>${flags.map(f => html`<span class="tag warn">${words(f)}</span> `)}</p><p class="reason">${emp.words}</p>
    <details><summary>All evidence (${emp.evidence.length})</summary><table class="plain"><tbody>${emp.evidence.map(e => html`<tr title=${e.description}><th scope="row">${e.name}</th><td class="number">${shown(e.value)} ${e.unit}</td></tr>`)}</tbody></table></details></section>`;
}

function Labels({ labels, spectra, visits, level: H }) {
  const names = [...new Set(labels.map(l => l.label))], sources = [...new Set(labels.map(l => l.source))];
  const one = (name, source) => labels.find(l => l.label === name && l.source === source);
  return html`<section class="card" aria-label="Labels"><${H}>Labels</${H}>
    ${labels.length ? html`<div class="scroll" tabindex="0" role="region" aria-label="Labels by source"><table class="plain"><thead><tr><th></th>${sources.map(s => html`<th scope="col" class="number">${words(s).replace('lamost_lrs', 'LAMOST').replace('gaia_xp', 'XP').replace('lamost lrs', 'LAMOST').replace('gaia xp', 'XP')}</th>`)}</tr></thead>
      <tbody>${names.map(n => html`<tr><th scope="row">${words(n)}</th>${sources.map(s => { const l = one(n, s); return html`<td class="number">${l ? html`${shown(l.value, n)}${l.error !== null && l.error !== undefined ? html`<span class="soft"> ± ${shown(l.error, n)}</span>` : ''}${l.flag ? html` <abbr title=${`flag ${l.flag}: see the definitions on the page About`}>⚑</abbr>` : ''}` : ''}</td>`; })}</tr>`)}</tbody></table></div>` : html`<p class="soft">No catalogue and no estimator says anything of this star.</p>`}
    <table class="plain"><thead><tr><th scope="col">spectrum</th><th scope="col">release</th><th scope="col" class="number">S/N</th></tr></thead><tbody>${spectra.map(s => html`<tr><th scope="row">${words(s.modality)}${s.simulated ? ' (simulated)' : ''}</th><td>${s.release}</td><td class="number">${shown(s.snr, 'snr')}</td></tr>`)}</tbody></table>
    ${visits.length > 1 && html`<details><summary>${visits.length} LAMOST spectra</summary><ul>${visits.map(v => html`<li><a href=${base + starPath(v.key)}>${v.key}</a>${v.shown ? ' (shown)' : ''}</li>`)}</ul></details>`}</section>`;
}

function Neighbours({ data, panels, overlay, pin, pinned, query }) {
  const rows = objects(data), small = query.near !== 'table';
  const modalities = [...new Set(rows.map(r => r.modality))];
  const columns = ['rank', 'spec_id', 'similarity', 'teff', 'logg', 'feh', 'teff_estimated', 'logg_estimated', 'feh_estimated', 'snr'].filter(n => data.columns.some(c => c.name === n) && rows.some(r => r[n] !== null));
  return html`<div class="tabs" role="group" aria-label="How neighbours are shown"><button type="button" aria-pressed=${small} onClick=${() => setQuery({ near: '' })}>Spectra</button><button type="button" aria-pressed=${!small} onClick=${() => setQuery({ near: 'table' })}>Table</button></div>
  ${modalities.map(m => {
    const here = rows.map((r, i) => [r, data.keys[i]]).filter(([r]) => r.modality === m);
    const some = { ...data, rows: data.rows.filter((_, i) => rows[i].modality === m) };
    return html`<h3>${words(m)}</h3>${small
      ? html`<ul class="multiples">${here.slice(0, 12).map(([r, key]) => html`<${Multiple} key=${key} row=${r} starKey=${key} over=${panels?.find(p => p.name === m)?.data.flux} overlay=${overlay} pin=${pin} on=${pinned.some(p => p.key === key)}/>`)}</ul>`
      : html`<${Table} data=${some} columns=${columns} caption=${`Nearest ${words(m)} spectra`} onHover=${i => overlay(i < 0 ? null : here[i][1])}/>`}`;
  })}`;
}

function Multiple({ row, starKey, over, overlay, pin, on }) {
  const [panels, set] = useState(null), box = useRef(null);
  useEffect(() => {
    // drawn when it comes into view
    const watch = new IntersectionObserver(entries => { if (entries[0].isIntersecting) { watch.disconnect(); ownPanels(starKey).then(set, () => {}); } }, { rootMargin: '200px' });
    watch.observe(box.current);
    return () => watch.disconnect();
  }, [starKey]);
  const label = [['Teff', row.teff ?? row.teff_estimated, 'teff'], ['[Fe/H]', row.feh ?? row.feh_estimated, 'feh']].filter(x => x[1] !== null && x[1] !== undefined).map(x => `${x[0]} ${shown(x[1], x[2])}`).join(', ');
  return html`<li class=${on ? 'on' : ''} ref=${box} onMouseEnter=${() => overlay(starKey)} onMouseLeave=${() => overlay(null)}>
    <a href=${base + starPath(starKey)} onFocus=${() => overlay(starKey)} onBlur=${() => overlay(null)}><${Spark} flux=${panels?.find(p => p.key === starKey)?.data.flux} over=${over} label=${`Spectrum of ${starKey}`}/><span class="id">${starKey}</span></a>
    <span>${row.similarity.toFixed(3)} <span class="soft">${label}</span></span>
    <button type="button" class="small" aria-pressed=${on} onClick=${() => pin(starKey)} title="Draw it over this star's spectrum">${on ? 'Unpin' : 'Pin'}</button></li>`;
}
