// A list to judge: list left, star right, keys j k 1 2 3 z n.
import { html, useState, useEffect, useRef, useData, post, askJson, base, withQuery, setQuery, useKeys, objects, shown, words, Problem, Loading, Formats } from './lib.js';
import { StarView, VERDICTS } from './star.js';

const FILTERS = {
  anomalies: [['kind', 'kind'], ['q', 'q at most'], ['score', 'score at least'], ['snr', 'LAMOST S/N at least']],
  emp: [['p', 'probability at least'], ['snr', 'XP S/N at least'], ['clean', 'without flags']],
};

export function Queue({ name, query, me }) {
  const asked = Object.fromEntries(['top', 'verdict', ...FILTERS[name].map(f => f[0])].filter(k => query[k]).map(k => [k, query[k]]));
  const [round, setRound] = useState(0);
  const state = useData(withQuery(`/${name}.json`, asked) + (round ? `${Object.keys(asked).length ? '&' : '?'}round=${round}` : ''));
  const [given, setGiven] = useState({});
  const undo = useRef([]);
  const [error, setError] = useState(null), [told, setTold] = useState('');
  const note = useRef(null), list = useRef(null);
  useEffect(() => { document.title = `${name === 'emp' ? 'Metal-poor candidates' : 'Anomalies'} - explorer`; }, [name]);
  useEffect(() => { undo.current = []; setGiven({}); }, [name]);
  const rows = state.data ? objects(state.data) : [];
  const place = Math.max(0, rows.findIndex(r => r.key === query.at));
  const row = rows[place];
  const go = step => { const next = rows[Math.min(rows.length - 1, Math.max(0, place + step))]; if (next) setQuery({ at: next.key }); };
  useEffect(() => { list.current?.querySelector('[aria-current]')?.scrollIntoView({ block: 'nearest' }); }, [place, state.data]);
  const pair = r => `${r.lrs_spec_id}/${r.xp_spec_id}`;
  const verdictOf = r => (pair(r) in given ? given[pair(r)] : r.verdict);
  const send = async (r, verdict) => {
    const answer = await post('/verdict', { queue: name, lrs_spec_id: r.lrs_spec_id, xp_spec_id: r.xp_spec_id, verdict: verdict || '', note: note.current?.value || '' });
    setGiven(old => ({ ...old, [pair(r)]: answer.verdict }));
    setTold(`${r.key}: ${answer.verdict || 'verdict taken back'}`);
  };
  const judge = async verdict => {
    if (!row || !me?.judges) return;
    const before = verdictOf(row) || '';
    try { await send(row, verdict); undo.current.push([row, before]); setError(null); if (note.current) note.current.value = ''; go(1); } catch (failure) { setError(failure); }
  };
  const back = async () => {
    const last = undo.current.pop();
    if (!last) { setTold('Nothing to undo'); return; }
    try { await send(last[0], last[1]); setQuery({ at: last[0].key }); setError(null); } catch (failure) { undo.current.push(last); setError(failure); }
  };
  useKeys({ j: () => go(1), k: () => go(-1), ArrowDown: () => go(1), ArrowUp: () => go(-1), 1: () => judge('interesting'), 2: () => judge('artifact'), 3: () => judge('normal'), z: back, r: () => { setGiven({}); setRound(Date.now()); }, n: () => note.current?.focus() });
  const judged = rows.filter(verdictOf).length;
  return html`<div class="queue">
    <section class="list" aria-label="List"><h1 tabindex="-1">${name === 'emp' ? `Metal-poor candidates${state.data?.below !== undefined && state.data?.below !== null ? `, [Fe/H] < ${state.data.below}` : ''}` : 'Strangest stars'}</h1>
      <${Filters} name=${name} query=${query} kinds=${state.data?.kinds || []}/>
      <${Problem} error=${state.error}/>
      ${state.data && html`<p class="progress"><progress max=${Math.max(1, rows.length)} value=${judged} aria-label="Judged"></progress> ${judged} of ${rows.length} judged${state.data.matching > rows.length ? `; ${state.data.matching} match` : ''}${me?.judges ? html` <button type="button" class="small" onClick=${() => { setGiven({}); setRound(Date.now()); }} title="Let the verdicts move the ranks (key r)">Re-rank</button>` : ''}</p>`}
      ${!state.data && !state.error && html`<${Loading} what="Ranking"/>`}
      <ol class="rows" ref=${list}>${rows.map((r, i) => html`<li key=${pair(r)}><a href=${base + withQuery(`/${name}`, { ...query, at: r.key })} aria-current=${i === place ? 'true' : null} onClick=${e => { if (!e.ctrlKey && !e.metaKey) { e.preventDefault(); setQuery({ at: r.key }); } }}>
        <span class="rank">${r.rank}</span><span class="what"><span class="id">${r.key}</span>
        ${name === 'emp' ? html`<span>P ${shown(r.probability)} · [Fe/H] ${r.feh === null ? '?' : r.feh.toFixed(2)}</span>` : html`<span>${r.score.toFixed(1)} · q ${shown(r.q_value)}${r.kind ? ` · ${words(r.kind)}` : ''}</span>`}</span>
        ${verdictOf(r) && html`<span class=${`tag ${verdictOf(r)}`} title=${r.judged_by || ''}>${verdictOf(r)}</span>`}</a></li>`)}</ol>
      <${Formats} path=${`/${name}`} query=${asked}/>
    </section>
    <section class="judge" aria-label="Star">
      ${me?.judges && row && html`<div class="verdict bar" role="group" aria-label="Verdict">${VERDICTS.map(([k, word]) => html`<button type="button" class=${`v ${word}`} aria-pressed=${verdictOf(row) === word} onClick=${() => judge(word)}><kbd>${k}</kbd> ${word}</button>`)}
        <button type="button" onClick=${back}><kbd>z</kbd> undo</button>
        <input ref=${note} type="text" maxlength="1000" aria-label="Note, kept with the next verdict" placeholder="n: note for the next verdict" onKeyDown=${e => { if (e.key === 'Escape' || e.key === 'Enter') e.target.blur(); }}/>
        <span class="soft hint"><kbd>j</kbd> next <kbd>k</kbd> previous</span></div>`}
      <p class="hidden" role="status" aria-live="polite">${told}</p><${Problem} error=${error}/>
      ${row?.note && html`<p class="note">Note: ${row.note}</p>`}
      ${row ? html`<${StarView} starKey=${row.key} query=${query} me=${me} embedded/>` : state.data && html`<p>No star matches.</p>`}
    </section></div>`;
}

function Filters({ name, query, kinds }) {
  return html`<form class="filters" onSubmit=${e => e.preventDefault()}>${FILTERS[name].map(([key, label]) => key === 'kind'
    ? html`<label>${label} <select value=${query.kind || ''} onChange=${e => setQuery({ kind: e.target.value, at: '' })}><option value="">any</option>${kinds.map(k => html`<option value=${k}>${words(k)}</option>`)}</select></label>`
    : key === 'clean' ? html`<label><input type="checkbox" checked=${query.clean === '1'} onChange=${e => setQuery({ clean: e.target.checked ? '1' : '', at: '' })}/> ${label}</label>`
      : html`<label>${label} <input type="number" step="any" size="5" value=${query[key] || ''} onChange=${e => setQuery({ [key]: e.target.value, at: '' })}/></label>`)}
    <label>show <select value=${query.verdict || ''} onChange=${e => setQuery({ verdict: e.target.value, at: '' })}><option value="">all</option><option value="none">not judged</option>${VERDICTS.map(([, v]) => html`<option value=${v}>${v}</option>`)}</select></label>
    <label>first <select value=${query.top || '100'} onChange=${e => setQuery({ top: e.target.value, at: '' })}>${[50, 100, 300, 1000].map(n => html`<option value=${n}>${n}</option>`)}</select></label></form>`;
}
