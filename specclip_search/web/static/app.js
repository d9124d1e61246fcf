// The frame around every page: navigation, the box, which page an address means.
import { html, render, Component, useState, useEffect, useRef, useAddress, askJson, base, go, post, ask } from './lib.js';
import { StarView } from './star.js';
import { Queue } from './queue.js';
import { MapPage } from './map.js';
import { SkyPage } from './sky.js';
import { SqlPage } from './sql.js';
import { Home, About, FilePage, SearchBox } from './pages.js';

const NAV = [['/anomalies', 'Anomalies'], ['/emp', 'Metal-poor'], ['/map', 'Map'], ['/sky', 'Sky'], ['/sql', 'SQL'], ['/about', 'About']];

class Safe extends Component {
  componentDidCatch(error) { console.error(error); this.setState({ error }); }
  componentDidUpdate(before) { if (before.path !== this.props.path && this.state.error) this.setState({ error: null }); }
  render() { return this.state.error ? html`<div class="problem" role="alert"><strong>This page could not be shown.</strong><p>${String(this.state.error.message)}</p></div>` : this.props.children; }
}

function page(path, query, me) {
  const star = path.match(/^\/star\/([^/]+)$/);
  if (star) return html`<${StarView} key=${star[1]} starKey=${star[1]} query=${query} me=${me}/>`;
  switch (path) {
    case '/': return html`<${Home} me=${me}/>`;
    case '/anomalies': case '/emp': return html`<${Queue} key=${path} name=${path.slice(1)} query=${query} me=${me}/>`;
    case '/map': return html`<${MapPage} query=${query}/>`;
    case '/sky': return html`<${SkyPage} query=${query}/>`;
    case '/sql': return html`<${SqlPage} query=${query}/>`;
    case '/about': return html`<${About}/>`;
    case '/file': return html`<${FilePage} query=${query} me=${me}/>`;
    default: return html`<h1 tabindex="-1">There is no such page</h1>`;
  }
}

function App() {
  const { path, query } = useAddress();
  const [me, setMe] = useState(null);
  const first = useRef(true);
  useEffect(() => { askJson('/me.json').then(setMe, () => setMe({ judges: false, uploads: false })); }, []);
  useEffect(() => {
    if (first.current) { first.current = false; return; }
    scrollTo(0, 0);
    document.querySelector('#main')?.focus({ preventScroll: true });
  }, [path]);
  const out = async () => { await ask('/logout', { method: 'POST' }); location.assign(`${base}/login`); };
  return html`<header class="top"><a class="brand" href=${`${base}/`}><img src=${`${base}/static/icon.svg`} alt="" width="26" height="26"/> specclip</a>
      <nav aria-label="Pages">${NAV.map(([to, name]) => html`<a href=${base + to} aria-current=${path === to ? 'page' : null}>${name}</a>`)}</nav>
      ${path !== '/' && html`<${SearchBox} compact/>`}
      ${me?.login && html`<span class="me">${me.user} <button type="button" class="small" onClick=${out}>Sign out</button></span>`}</header>
    <main id="main" tabindex="-1"><${Safe} path=${path}>${page(path, query, me)}</${Safe}></main>`;
}

render(html`<${App}/>`, document.getElementById('app'));
