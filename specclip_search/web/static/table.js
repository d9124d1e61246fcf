// A table of rows from the server: sorted by a click, only the rows in view are in the document.
import { html, useState, useMemo, useRef, useLayoutEffect, words, shown, starPath, base } from './lib.js';

const ROW = 32;

const STAR_COLUMNS = { source_id: 'gaia', gaia_spec_id: 'gaia', xp_spec_id: 'gaia', lrs_spec_id: 'lamost', lamost_spec_id: 'lamost', obsid: 'lamost' };

function Cell({ column, value, row, names }) {
  const text = shown(value, column.name);
  let key = null;
  if (value !== null && column.name === 'key') key = value;
  else if (value !== null && column.name === 'spec_id') {
    const modality = row[names.indexOf('modality')];
    key = modality ? `${{ lamost_lrs: 'lamost', gaia_xp: 'gaia' }[modality] || modality}:${value}` : null;
  } else if (value !== null && STAR_COLUMNS[column.name]) key = `${STAR_COLUMNS[column.name]}:${value}`;
  return key ? html`<a href=${base + starPath(key)}>${text}</a>` : text;
}

// columns: names to show (all by default); onRow(index) when a row is pressed; chosen: index of the current row
export function Table({ data, columns, caption, height = 420, onRow, chosen = -1, onHover }) {
  const [sort, setSort] = useState(null);
  const [top, setTop] = useState(0);
  const box = useRef(null);
  const names = data.columns.map(c => c.name);
  const places = (columns || names).map(name => names.indexOf(name)).filter(i => i >= 0);
  const order = useMemo(() => {
    const rows = data.rows.map((_, i) => i);
    if (!sort) return rows;
    const { place, down } = sort, column = data.columns[place];
    const numeric = ['integer', 'number'].includes(column.type);
    const value = i => data.rows[i][place];
    const compare = numeric && column.text
      ? (a, b) => (BigInt(a) < BigInt(b) ? -1 : BigInt(a) > BigInt(b) ? 1 : 0)
      : numeric ? (a, b) => a - b : (a, b) => String(a).localeCompare(String(b));
    return rows.sort((i, j) => {
      const a = value(i), b = value(j);
      if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1;
      return (down ? -1 : 1) * compare(a, b);
    });
  }, [data, sort]);
  const virtual = data.rows.length > 60;
  const first = virtual ? Math.max(0, Math.floor(top / ROW) - 10) : 0;
  const last = virtual ? Math.min(order.length, first + Math.ceil(height / ROW) + 20) : order.length;
  useLayoutEffect(() => {
    const row = order.indexOf(chosen);
    if (row < 0 || !box.current) return;
    const { scrollTop, clientHeight } = box.current;
    if (row * ROW < scrollTop || (row + 3) * ROW > scrollTop + clientHeight) box.current.scrollTop = Math.max(0, row * ROW - clientHeight / 3);
  }, [chosen, data]);
  const press = place => setSort(old => (old?.place !== place ? { place, down: false } : old.down ? null : { place, down: true }));
  return html`<div class="table" ref=${box} style=${{ maxHeight: `${height}px` }} tabindex="0" role="region" aria-label=${caption}
      onScroll=${virtual ? e => setTop(e.currentTarget.scrollTop) : null}>
    <table aria-rowcount=${order.length + 1}><caption class="hidden">${caption}</caption>
    <thead><tr>${places.map(place => {
      const column = data.columns[place], on = sort?.place === place;
      return html`<th scope="col" aria-sort=${on ? (sort.down ? 'descending' : 'ascending') : 'none'} class=${['integer', 'number'].includes(column.type) && !column.text ? 'number' : ''}>
        <button type="button" onClick=${() => press(place)} title=${[column.description, column.unit && `[${column.unit}]`].filter(Boolean).join(' ') || column.name}>
        ${words(column.name)}${on ? (sort.down ? ' ▾' : ' ▴') : ''}</button></th>`;
    })}</tr></thead>
    <tbody>
      ${first > 0 && html`<tr aria-hidden="true" style=${{ height: `${first * ROW}px` }}></tr>`}
      ${order.slice(first, last).map((i, k) => html`<tr key=${i} aria-rowindex=${first + k + 2} class=${[i === chosen && 'chosen', onRow && 'press'].filter(Boolean).join(' ')}
          aria-current=${i === chosen ? 'true' : null} onClick=${onRow ? e => { if (!e.target.closest('a')) onRow(i); } : null} onMouseEnter=${onHover ? () => onHover(i) : null} onMouseLeave=${onHover ? () => onHover(-1) : null}>
        ${places.map(place => html`<td class=${['integer', 'number'].includes(data.columns[place].type) && !data.columns[place].text ? 'number' : data.columns[place].text ? 'id' : ''}>
          <${Cell} column=${data.columns[place]} value=${data.rows[i][place]} row=${data.rows[i]} names=${names}/></td>`)}</tr>`)}
      ${last < order.length && html`<tr aria-hidden="true" style=${{ height: `${(order.length - last) * ROW}px` }}></tr>`}
    </tbody></table></div>`;
}
