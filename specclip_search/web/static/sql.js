// SQL: one statement in the sandbox, its rows as table and scatter plot, on the map, as files.
import { html, useState, useEffect, useRef, useData, base, withQuery, setQuery, useWidth, useDark, css, words, Problem, Loading, Formats, CopyButton } from './lib.js';
import { Table } from './table.js';

export function SqlPage({ query }) {
  const schema = useData('/sql/schema.json');
  const [text, setText] = useState(query.q || '');
  useEffect(() => { setText(query.q || ''); }, [query.q]);
  useEffect(() => { document.title = 'SQL - explorer'; }, []);
  const answer = useData(query.q ? withQuery('/sql.json', { q: query.q }) : null);
  const area = useRef(null);
  const run = () => setQuery({ q: text.trim(), x: '', y: '' }, true);
  const insert = word => { const a = area.current, from = a.selectionStart, next = text.slice(0, from) + word + text.slice(a.selectionEnd); setText(next); requestAnimationFrame(() => { a.focus(); a.setSelectionRange(from + word.length, from + word.length); }); };
  const data = answer.data, numeric = data ? data.columns.filter(c => ['integer', 'number'].includes(c.type) && !c.text).map(c => c.name) : [];
  return html`<h1 tabindex="-1">SQL</h1><div class="sqlpage"><section aria-label="Statement">
      <form onSubmit=${e => { e.preventDefault(); run(); }}><label for="q" class="hidden">Statement</label>
        <textarea id="q" ref=${area} rows="6" spellcheck="false" value=${text} onInput=${e => setText(e.target.value)} placeholder="SELECT * FROM stars LIMIT 100" onKeyDown=${e => { if (e.key === 'Enter' && (e.ctrlKey || e.metaKey)) { e.preventDefault(); run(); } }}></textarea>
        <p class="actions"><button class="main">Run</button> <span class="soft"><kbd>Ctrl</kbd>+<kbd>Enter</kbd></span> <${CopyButton} text=${location.href} label="Copy link"/> <span class="soft">One SELECT; at most 10,000 rows, 10 s, 512 MB.</span></p></form>
      ${schema.data && html`<p class="examples">Examples: ${schema.data.examples.map((e, i) => html`${i ? ' · ' : ''}<a href=${base + withQuery('/sql', { q: e.q })}>${e.name}</a>`)}</p>`}
      <${Problem} error=${answer.error}/>${answer.loading && query.q && html`<${Loading} what="Running"/>`}
      ${data && query.q && !answer.loading && html`<p>${data.rows.length.toLocaleString('en')} row${data.rows.length === 1 ? '' : 's'}${data.truncated ? ' (there are more)' : ''}
        ${data.columns.some(c => c.name === 'source_id') && html` · <a href=${base + withQuery('/map', { over: query.q.replace(/;\s*$/, '') })}>show on the map</a>`}</p>
        <${Table} data=${data} caption="Rows of the statement" height="480"/>
        ${numeric.length > 1 && data.rows.length > 1 && html`<${Scatter} data=${data} numeric=${numeric} query=${query}/>`}
        <${Formats} path="/sql" query=${{ q: query.q }} label="These rows"/>`}
    </section>
    <aside class="card" aria-label="Tables"><h2>Tables</h2><${Problem} error=${schema.error}/>
      ${(schema.data?.views || []).map(v => html`<details key=${v.name}><summary><code>${v.name}</code> <span class="soft">${v.description}</span></summary><ul class="fields">${v.columns.map(c => html`<li title=${c.description}><button type="button" class="link" onClick=${() => insert(c.name)}><code>${c.name}</code></button> <span class="soft">${c.unit || c.type}</span></li>`)}</ul></details>`)}
      <p class="soft">Functions: <code>similar('gaia:…', k)</code>, <code>cone(ra, dec, radius_deg)</code>, <code>cosine(a, b)</code>, <code>separation_arcsec(…)</code>.</p></aside></div>`;
}

function Scatter({ data, numeric, query }) {
  const x = numeric.includes(query.x) ? query.x : numeric[0], y = numeric.includes(query.y) ? query.y : numeric[1];
  const box = useRef(null), host = useRef(null), width = useWidth(box), dark = useDark();
  useEffect(() => {
    if (!width) return undefined;
    const [i, j] = [x, y].map(n => data.columns.findIndex(c => c.name === n));
    const points = data.rows.filter(r => r[i] !== null && r[j] !== null).map(r => [r[i], r[j]]).sort((a, b) => a[0] - b[0]);
    if (!points.length) { host.current.textContent = 'No row has both.'; return undefined; }
    host.current.textContent = '';
    const unit = n => { const c = data.columns.find(one => one.name === n); return words(n) + (c.unit ? ` [${c.unit}]` : ''); };
    const plot = new uPlot({ width, height: 340, legend: { show: false }, scales: { x: { time: false } }, cursor: { drag: { x: true, y: true } },
      series: [{}, { stroke: css('--blue'), paths: () => null, points: { show: true, size: 4, fill: css('--blue') } }],
      axes: [{ stroke: css('--soft'), label: unit(x), grid: { stroke: css('--line'), width: 0.5 }, labelSize: 20, size: 34 }, { stroke: css('--soft'), label: unit(y), grid: { stroke: css('--line'), width: 0.5 }, labelSize: 18, size: 54 }] }, [points.map(p => p[0]), points.map(p => p[1])], host.current);
    return () => plot.destroy();
  }, [data, x, y, width, dark]);
  const choose = (name, value, other) => html`<label>${name} <select value=${value} onChange=${e => setQuery({ [name]: e.target.value })}>${numeric.map(n => html`<option value=${n}>${words(n)}</option>`)}</select></label>`;
  return html`<details class="scatter" open=${data.rows.length > 2}><summary>Scatter plot</summary><p class="controls">${choose('x', x)} ${choose('y', y)}</p><div ref=${box} role="img" aria-label=${`Scatter plot of ${words(y)} against ${words(x)}`}><div ref=${host}></div></div></details>`;
}
