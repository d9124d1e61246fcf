// The small pages: home with its one box, a dropped file, about.
import { html, useState, useEffect, useRef, useData, askJson, ask, base, go, starPath, withQuery, words, shown, objects, Problem, Loading, Formats, Failure } from './lib.js';
import { Table } from './table.js';
import { Panel, unpackPanels, viewerOptions } from './viewer.js';

export function SearchBox({ compact = false }) {
  const [state, set] = useState({ busy: false, error: null, near: null });
  const submit = async event => {
    event.preventDefault();
    const text = event.target.q.value.trim();
    if (!text) return;
    set({ busy: true, error: null, near: null });
    try {
      const found = await askJson(`/api/resolve?q=${encodeURIComponent(text)}`);
      set({ busy: false, error: null, near: found.key ? null : found });
      if (found.key) { event.target.q.value = ''; go(starPath(found.key)); }
    } catch (error) { set({ busy: false, error, near: null }); }
  };
  return html`<div class=${compact ? 'search compact' : 'search'}><form role="search" onSubmit=${submit}><label class="hidden" for=${compact ? 'q0' : 'q1'}>Star</label>
      <input id=${compact ? 'q0' : 'q1'} name="q" type="search" autocomplete="off" spellcheck="false" placeholder=${compact ? 'name, id or position' : 'gaia:…, lamost:…, HD 122563, 188.7 12.6, J122345.67+123456.7'} maxlength="200"/><button disabled=${state.busy}>${state.busy ? 'Looking …' : 'Find'}</button></form>
    ${(state.error || state.near) && html`<div class="answer"><button type="button" class="small close" aria-label="Close" onClick=${() => set({ busy: false, error: null, near: null })}>×</button><${Problem} error=${state.error}/>
      ${state.near && html`<div role="status"><p>Not in this atlas: ${state.near.how}.${state.near.near.length ? ' Nearest stars:' : ' No star of the atlas lies within a degree.'}</p><ol class="plainlist">${state.near.near.slice(0, 8).map(s => html`<li><a class="id" href=${base + starPath(s.key)}>${s.key}</a> at ${s.separation_arcsec.toFixed(0)}″</li>`)}</ol></div>`}</div>`}</div>`;
}

export function Home({ me }) {
  const info = useData('/index.json'), odd = useData('/anomalies.json?top=6'), poor = useData('/emp.json?top=6');
  useEffect(() => { document.title = 'specclip-search explorer'; }, []);
  return html`<div class="home"><h1 tabindex="-1">${info.data ? info.data.atlas : 'Explorer'}</h1>
    <${SearchBox}/>${me?.uploads && html`<${Drop} limit=${me.upload_bytes}/>`}
    <${Problem} error=${info.error}/>
    <div class="columns"><section class="card" aria-label="The atlas"><h2>In this atlas</h2>${info.data ? html`<table class="plain"><tbody>${info.data.counts.map(([n, v]) => html`<tr><th scope="row">${n.replace('lamost_lrs', 'LAMOST LRS').replace('gaia_xp', 'Gaia XP')}</th><td>${v}</td></tr>`)}</tbody></table>
        <ul class="health">${info.data.health.map(h => html`<li class=${h.good ? 'good' : 'bad'}>${words(h.what)} <span class="soft">${h.good ? '' : h.why}</span></li>`)}</ul>` : html`<${Loading}/>`}</section>
      <${Few} title="Strangest stars" path="/anomalies" state=${odd} line=${r => `${r.score.toFixed(1)} · ${words(r.kind || '')}`}/>
      <${Few} title="Metal-poor candidates" path="/emp" state=${poor} line=${r => `P ${shown(r.probability)} · [Fe/H] ${r.feh === null ? '?' : r.feh.toFixed(2)}`}/></div>
    <p class="doors"><a href=${`${base}/map`}>Map of the space</a> <a href=${`${base}/sky`}>Sky</a> <a href=${`${base}/sql`}>SQL</a> <a href=${`${base}/about`}>What was searched, and how well</a></p></div>`;
}

function Few({ title, path, state, line }) {
  return html`<section class="card" aria-label=${title}><h2><a href=${base + path}>${title}</a></h2>${state.error ? html`<p class="soft">${state.error.message} ${state.error.hint}</p>` : !state.data ? html`<${Loading}/>` : html`<ol class="plainlist">${objects(state.data).map(r => html`<li><a class="id" href=${base + withQuery(path, { at: r.key })}>${r.key}</a> <span class="soft">${line(r)}</span></li>`)}</ol>`}</section>`;
}

// what a file gave, until another one is dropped
let last = null;
function Drop({ limit }) {
  const [state, set] = useState({ over: false, busy: false, error: null });
  const send = async file => {
    if (!file) return;
    if (file.size > limit) { set({ over: false, busy: false, error: new Failure(`${file.name} is larger than ${limit / 1e6} MB.`, 'Choose a file with one spectrum.') }); return; }
    set({ over: false, busy: true, error: null });
    try {
      last = await (await ask(withQuery('/upload', { name: file.name }), { method: 'POST', headers: { 'Content-Type': 'application/octet-stream' }, body: file })).json();
      set({ over: false, busy: false, error: null }); go('/file');
    } catch (error) { set({ over: false, busy: false, error }); }
  };
  return html`<div class=${`drop ${state.over ? 'over' : ''}`} onDragOver=${e => { e.preventDefault(); set({ ...state, over: true }); }} onDragLeave=${() => set({ ...state, over: false })} onDrop=${e => { e.preventDefault(); send(e.dataTransfer.files[0]); }}>
    <label>${state.busy ? 'Reading and searching …' : html`Drop a spectrum (FITS, CSV, VOTable), or <span class="link">choose a file</span>: it is searched with and kept nowhere.`}<input type="file" disabled=${state.busy} onChange=${e => { send(e.target.files[0]); e.target.value = ''; }}/></label><${Problem} error=${state.error}/></div>`;
}

export function FilePage({ query, me }) {
  useEffect(() => { document.title = 'A file - explorer'; }, []);
  if (!last) return html`<h1 tabindex="-1">A file</h1><p>No file is open; it is kept in this tab alone.</p>${me?.uploads && html`<${Drop} limit=${me.upload_bytes}/>`}`;
  const bytes = Uint8Array.from(atob(last.panels), c => c.charCodeAt(0));
  const panels = unpackPanels(bytes.buffer);
  return html`<h1 tabindex="-1">${last.name}</h1><p>A ${words(last.modality)} spectrum that is not in the atlas.</p>
    ${panels.map(p => html`<${Panel} key=${p.name} panel=${p} options=${viewerOptions(query)}/>`)}
    ${last.labels.length > 0 && html`<table class="plain"><caption>Estimated labels</caption><tbody>${last.labels.map(l => html`<tr><th scope="row">${words(l.label)}</th><td class="number">${shown(l.value, l.label)} <span class="soft">± ${shown(l.error, l.label)}</span></td></tr>`)}</tbody></table>`}
    <h2>Nearest spectra</h2><${Table} data=${last} columns=${['rank', 'spec_id', 'modality', 'similarity', 'teff', 'logg', 'feh', 'snr', 'source_id']} caption="Nearest spectra"/>
    ${me?.uploads && html`<${Drop} limit=${me.upload_bytes}/>`}`;
}

export function About() {
  const info = useData('/about.json');
  useEffect(() => { document.title = 'About - explorer'; }, []);
  const d = info.data;
  const rows = (caption, head, body) => html`<div class="scroll" tabindex="0" role="region" aria-label=${caption}><table class="plain"><caption>${caption}</caption>${head && html`<thead><tr>${head.map(h => html`<th scope="col">${h}</th>`)}</tr></thead>`}<tbody>${body.map(r => html`<tr>${r.map((c, i) => (i ? html`<td class="break">${c}</td>` : html`<th scope="row">${c}</th>`))}</tr>`)}</tbody></table></div>`;
  return html`<h1 tabindex="-1">About this atlas</h1><${Problem} error=${info.error}/>${!d ? !info.error && html`<${Loading}/>` : html`
    <div class="columns"><section class="card"><h2>What was searched</h2>${rows('Counts', null, d.counts)}${d.rejected.length > 0 && rows('Set aside', ['instrument', 'reason', 'number'], d.rejected)}</section>
    <section class="card"><h2>Health</h2><ul class="health">${d.health.map(h => html`<li class=${h.good ? 'good' : 'bad'}>${words(h.what)} <span class="soft">${h.why}</span></li>`)}</ul><h2>How well the index finds</h2>${rows('Recall against exact search', ['instrument', 'recipe', 'group', 'recall@10', 'recall@100', 'queries'], d.recall)}</section></div>
    <section class="card"><h2>Made with</h2>${rows('Versions and digests', null, d.origin)}</section>
    <h2>Definitions</h2>${d.definitions.map(t => html`<details><summary>${t.table} (${t.columns.length} columns)</summary>${rows(`Columns of ${t.table}`, ['column', 'unit', 'meaning'], t.columns)}</details>`)}
    <${Formats} path="/about"/>`}`;
}
