// Cuts GitHub's OpenAPI descriptions down to the calls that crates/github makes.
// usage: node regenerate.mjs        (needs npm and tar; writes *.json and LICENSE beside itself; see README.md)
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

// Which release of @octokit/openapi holds which description: a release has only the servers that were supported at its time.
const SOURCES = [
  { name: 'ghes-3.10', release: '14.0.0' },
  { name: 'ghes-3.14', release: '18.0.0' },
  { name: 'ghes-3.19', release: '23.0.2' },
  { name: 'ghec', release: '23.0.2' },
];

// Every call of src/client.rs. A path that a description lacks stops the script.
const SCOPES = ['/orgs/{org}', '/repos/{owner}/{repo}', '/enterprises/{enterprise}'];
const CALLS = [
  ...SCOPES.flatMap((scope) => [
    ['post', `${scope}/actions/runners/generate-jitconfig`],
    ['get', `${scope}/actions/runners`],
    ['delete', `${scope}/actions/runners/{runner_id}`],
  ]),
  ['get', '/orgs/{org}/actions/runner-groups'],
  ['get', '/enterprises/{enterprise}/actions/runner-groups'],
  ['get', '/repos/{owner}/{repo}/actions/jobs/{job_id}'],
  // As a GitHub App.
  ['get', '/app/installations'],
  ['post', '/app/installations/{installation_id}/access_tokens'],
  ['get', '/orgs/{org}/installation'],
  ['get', '/users/{username}/installation'],
  ['get', '/installation/repositories'],
  // Webhooks that came to nothing.
  ['get', '/app/hook/config'],
  ['get', '/app/hook/deliveries'],
  ['post', '/app/hook/deliveries/{delivery_id}/attempts'],
  ...['/orgs/{org}', '/repos/{owner}/{repo}'].flatMap((scope) => [
    ['get', `${scope}/hooks`],
    ['get', `${scope}/hooks/{hook_id}/deliveries`],
    ['post', `${scope}/hooks/{hook_id}/deliveries/{delivery_id}/attempts`],
  ]),
  // Jobs that nobody told of.
  ['get', '/organizations'],
  ['get', '/orgs/{org}/repos'],
  ['get', '/repos/{owner}/{repo}/actions/runs'],
  ['get', '/repos/{owner}/{repo}/actions/runs/{run_id}/jobs'],
];

const here = dirname(fileURLToPath(import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), 'jit-openapi-'));
const run = (command, args) => execFileSync(command, args, { cwd: scratch, maxBuffer: 256 << 20, stdio: ['ignore', 'pipe', 'ignore'] });
const packed = {};
const fromRelease = (release, file) => {
  packed[release] ??= run('npm', ['pack', '--silent', `@octokit/openapi@${release}`]).toString().trim();
  return run('tar', ['-xzOf', packed[release], `package/${file}`]);
};

// What a validator does not read: prose, and GitHub's and Octokit's extensions. A property that is itself named `description` is a schema, not a string, and stays.
const isProse = (key, value) => key.startsWith('x-') || key === 'externalDocs' || (key === 'description' && typeof value === 'string');
const strip = (node, isExample = false) => {
  if (Array.isArray(node)) return node.map((item) => strip(item, isExample));
  if (node === null || typeof node !== 'object' || isExample) return node;
  return Object.fromEntries(
    Object.entries(node).filter(([key, value]) => !isProse(key, value)).map(([key, value]) => [key, strip(value, key === 'value' || key === 'example')]),
  );
};

const cut = ({ name, release }) => {
  const full = JSON.parse(fromRelease(release, `generated/${name}.json`));
  const at = (ref) => ref.slice(2).split('/').reduce((node, key) => node?.[key.replaceAll('~1', '/').replaceAll('~0', '~')], full);
  const paths = {};
  for (const [method, path] of CALLS) {
    const operation = full.paths[path]?.[method];
    if (!operation) throw new Error(`${name} describes no ${method} ${path}`);
    (paths[path] ??= {})[method] = strip(operation);
  }
  // basic-error: what GitHub's other refusals look like, also where a call does not list them.
  const components = {};
  const wanted = ['#/components/schemas/basic-error'];
  const collect = (node) => {
    if (node === null || typeof node !== 'object') return;
    if (typeof node.$ref === 'string') wanted.push(node.$ref);
    Object.values(node).forEach(collect);
  };
  collect(paths);
  for (const ref of wanted) { // grows while it is walked
    const [, , kind, key] = ref.split('/');
    if (components[kind]?.[key]) continue;
    (components[kind] ??= {})[key] = strip(at(ref));
    collect(components[kind][key]);
  }
  for (const kind of Object.keys(components)) components[kind] = Object.fromEntries(Object.entries(components[kind]).sort(([a], [b]) => (a < b ? -1 : 1)));
  const info = { title: full.info.title, version: full.info.version, license: full.info.license, 'x-source': `npm @octokit/openapi@${release} generated/${name}.json, cut down by regenerate.mjs` };
  const text = JSON.stringify({ openapi: full.openapi, info, paths, components }, null, 1) + '\n';
  writeFileSync(join(here, `${name}.json`), text);
  console.log(`${name}.json: ${CALLS.length} calls, ${text.length} bytes, from @octokit/openapi@${release}`);
};

try {
  SOURCES.forEach(cut);
  writeFileSync(join(here, 'LICENSE'), fromRelease(SOURCES.at(-1).release, 'LICENSE'));
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
