// A local OpenID Connect provider for trying Ward's sign-in on a laptop. It is not for production: it accepts any password, and
// keeps all data in memory.
//
// Users are created when they sign in: the login is the subject, and the address LOGIN@clinic.example is verified unless
// the login starts with "new-". Two clients are registered:
//   ward-app      a public client, code + PKCE, any loopback redirect URI
//   ward-machine  a machine with the secret "not-a-secret", client credentials

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';

import { Provider } from 'oidc-provider';

const { values: options } = parseArgs({
  options: {
    port: { type: 'string', default: '4000' },
    audience: { type: 'string', default: 'http://127.0.0.1:8080' },
    redirect: { type: 'string', default: 'http://127.0.0.1/callback' },
  },
});

const key = (type, parameters, use) => ({
  ...generateKeyPairSync(type, parameters).privateKey.export({ format: 'jwk' }),
  ...use,
});
const name = randomBytes(4).toString('hex');

const person = (login) => ({
  name: login.charAt(0).toUpperCase() + login.slice(1),
  email: `${login}@clinic.example`,
  email_verified: !login.startsWith('new-'),
});

const configuration = {
  clients: [
    {
      client_id: 'ward-app',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token'],
      redirect_uris: [options.redirect],
    },
    {
      client_id: 'ward-machine',
      client_secret: 'not-a-secret',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    },
  ],
  jwks: {
    keys: [
      key('rsa', { modulusLength: 2048 }, { kid: `rs-${name}`, alg: 'RS256', use: 'sig' }),
      key('ec', { namedCurve: 'P-256' }, { kid: `es-${name}`, alg: 'ES256', use: 'sig' }),
    ],
  },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  claims: { openid: ['sub'], profile: ['name'], email: ['email', 'email_verified'] },
  conformIdTokenClaims: false,
  findAccount: (_, login) => ({ accountId: login, claims: () => ({ sub: login, ...person(login) }) }),
  // Access tokens are JSON Web Tokens (RFC 9068) if there are resource indicators (RFC 8707): a token for Ward names Ward.
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => options.audience,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => {
        if (resource !== options.audience) throw new Error(`no such resource: ${resource}`);
        return {
          scope: 'ward',
          audience: options.audience,
          accessTokenFormat: 'jwt',
          accessTokenTTL: 3600,
          jwt: { sign: { alg: 'ES256' } },
        };
      },
    },
  },
  // These claims are what Ward shows to other members, and what invitations for an address check.
  extraTokenClaims: (_, token) => (token.kind === 'AccessToken' ? person(token.accountId) : undefined),
  pkce: { required: () => true },
  ttl: { Interaction: 600, Session: 3600, Grant: 3600 },
};

// The server listens first, because the issuer's name contains the port, and port 0 picks a free one.
const server = createServer();
server.listen(Number(options.port), '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, configuration);
  server.on('request', provider.callback());
  console.log(`issuer: ${issuer}`);
  console.log(`WARD_ISSUERS='[{"issuer": "${issuer}", "audience": "${options.audience}"}]'`);
});
server.on('error', (error) => {
  console.error(`identity provider: ${error.message}`);
  process.exit(1);
});
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));
