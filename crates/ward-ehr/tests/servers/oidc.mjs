// Runs oidc-provider with a client for each way of requesting a token. Prints one line of JSON: its address
// and the keys.
import { createServer } from 'node:http';
import { generateKeyPairSync } from 'node:crypto';
import Provider from 'oidc-provider';

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const ec = generateKeyPairSync('ec', { namedCurve: 'P-384' });
const jwk = (pair, kid, alg) => ({ ...pair.publicKey.export({ format: 'jwk' }), kid, alg, use: 'sig' });
const pem = (pair) => pair.privateKey.export({ type: 'pkcs8', format: 'pem' });
const scope = 'system/DocumentReference.c system/Communication.c';

const machine = (client_id, more) => ({
  client_id, grant_types: ['client_credentials'], redirect_uris: [], response_types: [], scope, ...more,
});
const asserting = (client_id, jwks, alg) => machine(client_id, {
  token_endpoint_auth_method: 'private_key_jwt', token_endpoint_auth_signing_alg: alg, jwks: { keys: [jwks] },
});

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [
      machine('by secret:1', { client_secret: 'p@ss word:+%&/~', token_endpoint_auth_method: 'client_secret_basic' }),
      asserting('rs384', jwk(rsa, 'rsa-1', 'RS384'), 'RS384'),
      asserting('es384', jwk(ec, 'ec-1', 'ES384'), 'ES384'),
    ],
    // The last scope is one that the clients may not have.
    scopes: [...scope.split(' '), 'system/Everything.*'],
    clientAuthMethods: ['client_secret_basic', 'private_key_jwt'],
    enabledJWA: { clientAuthSigningAlgValues: ['RS384', 'ES384'] },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      introspection: { enabled: true },
      registration: { enabled: true, initialAccessToken: 'an-initial-access-token' },
    },
    ttl: { ClientCredentials: 300 },
  });
  server.on('request', provider.callback());
  console.log(JSON.stringify({ issuer, rsa: pem(rsa), ec: pem(ec) }));
});
