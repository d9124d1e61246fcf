// What every page uses: asking the server, the address as state, numbers and keys as text.
import { html, render, Component, useState, useEffect, useLayoutEffect, useRef, useMemo, useCallback } from './vendor/preact-htm.js';
export { html, render, Component, useState, useEffect, useLayoutEffect, useRef, useMemo, useCallback };

export const base = document.body.dataset.base || '';

export class Failure extends Error {
  constructor(message, hint, status) { super(message); this.hint = hint; this.status = status; }
}

async function checked(answer) {
  if (answer.ok) return answer;
  let said = {};
  try { said = await answer.json(); } catch { /* not one of our answers */ }
  throw new Failure(said.error || `The server answered ${answer.status}.`, said.hint || '', answer.status);
}

export async function ask(path, options) {
  try { return await checked(await fetch(base + path, options)); } catch (error) {
    if (error instanceof Failure || error.name === 'AbortError') throw error;
    throw new Failure('The explorer does not answer.', 'Check that it still runs, then reload.', 0);
  }
}
export const askJson = async (path, options) => (await ask(path, options)).json();
export const post = (path, body) =>
  askJson(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });

// {data, error, loading} of an address; the last data stay while new ones come
export function useData(path, load = askJson) {
  const [state, set] = useState({ data: null, error: null, loading: true, path: null });
  useEffect(() => {
    if (path === null) { set({ data: null, error: null, loading: false, path }); return undefined; }
    const control = new AbortController();
    set(old => ({ ...old, loading: true, error: null }));
    load(path, { signal: control.signal }).then(
      data => set({ data, error: null, loading: false, path }),
      error => { if (error.name !== 'AbortError') set({ data: null, error, loading: false, path }); });
    return () => control.abort();
  }, [path]);
  return state;
}

// ---- the address ----
const listeners = new Set();
const here = () => ({
  path: decodeURIComponent(location.pathname).slice(base.length) || '/',
  query: Object.fromEntries(new URLSearchParams(location.search)),
});
export function go(address, replace = false) {
  history[replace ? 'replaceState' : 'pushState'](null, '', base + address);
  for (const tell of listeners) tell(here());
}
export function useAddress() {
  const [address, set] = useState(here());
  useEffect(() => {
    const tell = () => set(here());
    listeners.add(set); addEventListener('popstate', tell);
    return () => { listeners.delete(set); removeEventListener('popstate', tell); };
  }, []);
  return address;
}
export function withQuery(path, query) {
  const text = new URLSearchParams(Object.entries(query).filter(([, v]) => v !== '' && v !== null && v !== undefined)).toString();
  return text ? `${path}?${text}` : path;
}
// change some of the address's query, in place
export function setQuery(change, push = false) {
  const { path, query } = here();
  go(withQuery(encodePath(path), { ...query, ...change }), !push);
}
export const encodePath = path => path.split('/').map(encodeURIComponent).join('/').replace(/%3A/g, ':').replace(/%40/g, '@');
export const starPath = key => `/star/${encodeURIComponent(key).replace('%3A', ':').replace('%40', '@')}`;

document.addEventListener('click', event => {
  const link = event.target.closest?.('a[href]');
  if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const url = new URL(link.href);
  if (link.target || link.hasAttribute('download') || url.origin !== location.origin) return;
  if (!url.pathname.startsWith(base + '/') || /\.(json|csv|vot|parquet)$/.test(url.pathname) || url.hash) return;
  event.preventDefault();
  go(url.pathname.slice(base.length) + url.search);
});

// ---- text ----
const WORDS = {
  feh: '[Fe/H]', feh_err: '± [Fe/H]', alpha_fe: '[α/Fe]', c_fe: '[C/Fe]', teff: 'Teff', logg: 'log g', rv: 'RV',
  q_value: 'q', p_value: 'p', snr: 'S/N', lrs_snr: 'S/N LRS', xp_snr: 'S/N XP', spec_id: 'spectrum', source_id: 'Gaia source',
  xp_spec_id: 'XP spectrum', lrs_spec_id: 'LAMOST obsid', n_visits: 'visits', n_odd_visits: 'odd visits', ra: 'RA', dec: 'Dec',
  rank_in_instrument: 'rank there', other_spec_id: 'other spectrum', modality: 'instrument', emp_probability: 'P(EMP)',
  lamost_lrs: 'LAMOST LRS', gaia_xp: 'Gaia XP', wrong_match: 'wrong match', lrs_chi2: 'χ² LRS', xp_chi2: 'χ² XP',
};
export const words = name => WORDS[name] || name.replace(/_estimated$/, ' est.').replace(/_/g, ' ');
const PLACES = { ra: 5, dec: 5, similarity: 4, teff: 0, teff_err: 0, logg: 2, feh: 2, feh_err: 2, alpha_fe: 2, c_fe: 2, rv: 1, snr: 0 };
export function shown(value, name = '') {
  if (value === null || value === undefined) return '';
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (Array.isArray(value)) return value.length > 3 ? `[${value.slice(0, 3).map(v => shown(v)).join(', ')}, … ${value.length}]` : `[${value.map(v => shown(v)).join(', ')}]`;
  if (typeof value !== 'number') return String(value);
  const places = PLACES[name.replace(/_(estimated|xp|lrs)$/, '').replace(/^(catalog|lrs|xp)_/, '')];
  if (places !== undefined) return value.toFixed(places);
  if (Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : String(+value.toPrecision(4));
}
export const keyOf = row => row.modality ? `${{ lamost_lrs: 'lamost', gaia_xp: 'gaia' }[row.modality]}:${row.spec_id}` : null;
// rows of the server as objects
export const objects = data => data.rows.map(row => Object.fromEntries(data.columns.map((c, i) => [c.name, row[i]])));

export async function copyText(text) {
  try { await navigator.clipboard.writeText(text); return true; } catch {
    const area = document.createElement('textarea');
    area.value = text; document.body.append(area); area.select();
    const done = document.execCommand('copy'); area.remove();
    return done;
  }
}

export function CopyButton({ text, label = 'Copy', title }) {
  const [done, set] = useState(false);
  const press = async () => { set(await copyText(text)); setTimeout(() => set(false), 1500); };
  return html`<button type="button" class="small" onClick=${press} title=${title || 'Copy to the clipboard'}>${done ? 'Copied' : label}</button>`;
}

export function Problem({ error }) {
  if (!error) return null;
  return html`<div class="problem" role="alert"><strong>${error.message}</strong>${error.hint && html`<p>${error.hint}</p>`}</div>`;
}
export const Loading = ({ what = 'Loading' }) => html`<p class="loading" role="status">${what} …</p>`;

export function Formats({ path, query = {}, label = 'This page’s data' }) {
  return html`<p class="formats">${label}: ${['json', 'csv', 'vot', 'parquet'].map((f, i) =>
    html`${i ? ' · ' : ''}<a href=${base + withQuery(`${path}.${f}`, query)} target="_blank" rel="noopener">${f === 'vot' ? 'VOTable' : f === 'parquet' ? 'Parquet' : f.toUpperCase()}</a>`)}</p>`;
}

// ---- keys ----
export function useKeys(handlers, enabled = true) {
  const latest = useRef(handlers);
  latest.current = handlers;
  useEffect(() => {
    if (!enabled) return undefined;
    const press = event => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.('input, textarea, select, [contenteditable]')) return;
      const act = latest.current[event.key];
      if (act) { event.preventDefault(); act(event); }
    };
    addEventListener('keydown', press);
    return () => removeEventListener('keydown', press);
  }, [enabled]);
}

// ---- colours ----
export const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
export function useDark() {
  const query = useMemo(() => matchMedia('(prefers-color-scheme: dark)'), []);
  const [dark, set] = useState(query.matches);
  useEffect(() => { const tell = () => set(query.matches); query.addEventListener('change', tell); return () => query.removeEventListener('change', tell); }, []);
  return dark;
}
// viridis at nine places (Smith & van der Walt 2015, CC0), between them by straight lines
const VIRIDIS = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
export function viridis(t) {
  const at = Math.min(Math.max(t, 0), 1) * 8, i = Math.min(Math.floor(at), 7), part = at - i;
  return VIRIDIS[i].map((c, j) => Math.round(c + (VIRIDIS[i + 1][j] - c) * part));
}
export function useWidth(ref) {
  const [width, set] = useState(0);
  useLayoutEffect(() => {
    const watch = new ResizeObserver(entries => set(Math.floor(entries[0].contentRect.width)));
    if (ref.current) { set(Math.floor(ref.current.clientWidth)); watch.observe(ref.current); }
    return () => watch.disconnect();
  }, []);
  return width;
}
