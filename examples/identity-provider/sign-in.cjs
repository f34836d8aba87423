// Signs a person in with code + PKCE (RFC 7636) and prints the access token.
//
//   examples/identity-provider/sign-in [--issuer URL] [--audience URL]             in the browser
//   examples/identity-provider/sign-in [--issuer URL] [--audience URL] --as LOGIN  by itself, at the local provider only
//
// With a browser it works at any provider that has registered the client and its redirect URI.

const { createHash, randomBytes } = require('node:crypto');
const { createServer } = require('node:http');
const { parseArgs } = require('node:util');

const { values: options } = parseArgs({
  options: {
    issuer: { type: 'string', default: 'http://127.0.0.1:4000' },
    audience: { type: 'string', default: 'http://127.0.0.1:8080' },
    client: { type: 'string', default: 'ward-app' },
    as: { type: 'string' },
  },
});

const fail = (message) => {
  console.error(`sign-in: ${message}`);
  process.exit(1);
};

// The listener for the browser's return. It uses a port of its own: native clients may use any port on the loopback
// (RFC 8252, section 7.3).
const listen = () =>
  new Promise((resolve) => {
    const server = createServer();
    server.listen(0, '127.0.0.1', () => resolve(server));
  });

const comesBack = (server) =>
  new Promise((resolve) => {
    server.on('request', (request, response) => {
      const url = new URL(request.url, 'http://127.0.0.1');
      // Browsers request an icon too, at any time.
      if (url.pathname !== '/callback') {
        response.writeHead(404).end();
        return;
      }
      response.end('Signed in. You can close this page.\n');
      resolve(url);
    });
  });

// Fills in the local provider's two forms, as a browser would.
const walk = async (start, redirect) => {
  const cookies = new Map();
  const step = async (url, body) => {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const response = await fetch(url, {
      method: body ? 'POST' : 'GET',
      body: body && new URLSearchParams(body),
      headers: { cookie },
      redirect: 'manual',
    });
    for (const line of response.headers.getSetCookie()) {
      const [name, value] = line.split(';')[0].split('=');
      if (value) cookies.set(name, value);
      else cookies.delete(name);
    }
    const to = response.headers.get('location');
    if (!to) fail(`${response.status} where a redirect was expected: ${await response.text()}`);
    return new URL(to, url);
  };
  let url = new URL(start);
  for (let steps = 0; steps < 10; steps += 1) {
    if (url.href.startsWith(redirect)) return url;
    if (url.pathname.startsWith('/interaction/')) {
      const page = await (await fetch(url, { headers: { cookie: [...cookies].map((pair) => pair.join('=')).join('; ') } })).text();
      const form = page.includes('value="login"')
        ? { prompt: 'login', login: options.as, password: 'any' }
        : { prompt: 'consent' };
      url = await step(url, form);
    } else {
      url = await step(url);
    }
  }
  return fail('the provider redirects in circles');
};

const main = async () => {
  const issuer = options.issuer.replace(/\/$/, '');
  const metadata = await (await fetch(`${issuer}/.well-known/openid-configuration`)).json();
  const server = await listen();
  const redirect = `http://127.0.0.1:${server.address().port}/callback`;
  const verifier = randomBytes(32).toString('base64url');
  const state = randomBytes(16).toString('base64url');
  const start = new URL(metadata.authorization_endpoint);
  start.search = new URLSearchParams({
    client_id: options.client,
    response_type: 'code',
    redirect_uri: redirect,
    scope: 'openid profile email ward',
    resource: options.audience,
    state,
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
  });
  let back;
  if (options.as) {
    back = await walk(start.href, redirect);
  } else {
    console.error(`Open this page and sign in:\n\n  ${start.href}\n`);
    back = await comesBack(server);
  }
  server.close();
  if (back.searchParams.get('state') !== state) fail('the answer does not belong to this request');
  const code = back.searchParams.get('code');
  if (!code) fail(`${back.searchParams.get('error')}: ${back.searchParams.get('error_description')}`);
  const response = await fetch(metadata.token_endpoint, {
    method: 'POST',
    body: new URLSearchParams({
      grant_type: 'authorization_code',
      client_id: options.client,
      code,
      code_verifier: verifier,
      redirect_uri: redirect,
      resource: options.audience,
    }),
  });
  const told = await response.json();
  if (!response.ok) fail(`${told.error}: ${told.error_description}`);
  console.log(told.access_token);
};

main().catch((error) => fail(error.message));
