import { Project, eventually, sleep } from "./project.mjs";
const p = new Project(); let t0=performance.now(); const T=(l)=>{const n=performance.now(); console.log(l, Math.round(n-t0)); t0=n;};
const run=p.run.bind(p); p.run=(...a)=>{run(...a); T(a.slice(1,4).join(" "))};
await p.start(); T("started"); 
const c=[]; const t={after:f=>c.push(f)};
const a = await p.open(t,"A"); T("open"); const b = await p.open(t,"B"); T("open"); await a.say("x"); await sleep(500);
await p.engine.kill(); T("killed"); await a.banner.waitFor(); await b.banner.waitFor(); T("banner"); await a.say("y"); await sleep(Number(process.argv[2]??200)); await p.restart(); T("restarted");
await a.banner.waitFor({state:"detached"}); T("a back"); await b.banner.waitFor({state:"detached"}); T("b back");
for (const f of c) { await f(); T("closed"); }
await p.browser.close(); T("browser");
await p.page.stop(); T("page"); await p.engine.stop(); T("engine"); console.log(p.page.said);
