// A published client with DPoP: it gets a bound token of an identity provider and calls Ward with it, and with a bound API key.
//
//   node client.mjs ISSUER WARD CREATE-KEY-URL OWNER-KEY
//
// It prints what Ward answered, one line a step.

import assert from 'node:assert/strict';

import * as dpop from 'dpop';
import * as oauth from 'oauth4webapi';

const [issuer, ward, keys, owner] = process.argv.slice(2);
// All servers of the test listen on the loopback.
const plain = { [oauth.allowInsecureRequests]: true };
const me = new URL('/v1/me', ward);

/** Sends a request, and once more with the nonce of a challenge, as the library asks for. */
async function retried(request) {
  try {
    return await request();
  } catch (error) {
    if (!oauth.isDPoPNonceError(error)) throw error;
    console.log('challenged');
    return request();
  }
}

/** The token endpoint's answer to a machine that proves its key. */
async function grant(client, handle) {
  const found = await oauth.discoveryRequest(new URL(issuer), plain);
  const server = await oauth.processDiscoveryResponse(new URL(issuer), found);
  const secret = oauth.ClientSecretBasic('not-a-secret');
  const answer = await oauth.clientCredentialsGrantRequest(server, client, secret, {}, { DPoP: handle, ...plain });
  return oauth.processClientCredentialsResponse(server, client, answer);
}

const client = { client_id: 'ward-machine' };
// The provider accepts no proofs of RSA keys by default.
for (const algorithm of ['ES256', 'Ed25519']) {
  const pair = await oauth.generateKeyPair(algorithm, { extractable: false });
  const handle = oauth.DPoP(client, pair);
  const granted = await grant(client, handle);
  assert.equal(granted.token_type, 'dpop');
  const ask = () => oauth.protectedResourceRequest(granted.access_token, 'GET', me, undefined, undefined, { DPoP: handle, ...plain });
  for (let times = 0; times < 3; times += 1) {
    const answer = await retried(ask);
    assert.equal(answer.status, 200, await answer.clone().text());
    assert.equal((await answer.json()).kind, 'service');
  }
  const stolen = await fetch(me, { headers: { authorization: `Bearer ${granted.access_token}` } });
  assert.equal(stolen.status, 401);
  assert.match(stolen.headers.get('www-authenticate'), /^DPoP algs="ES256 .*error="invalid_token"$/);
  console.log(`token ${algorithm}`);
}

for (const algorithm of ['ES256', 'Ed25519', 'RS256', 'PS256']) {
  const pair = await dpop.generateKeyPair(algorithm);
  const jkt = await dpop.calculateThumbprint(pair.publicKey);
  const jwk = await crypto.subtle.exportKey('jwk', pair.publicKey);
  const minted = await fetch(keys, {
    method: 'POST',
    headers: { authorization: `Bearer ${owner}`, 'content-type': 'application/json' },
    body: JSON.stringify({ duration_days: 1, role: 'owner', bound_to: { jwk } }),
  });
  assert.equal(minted.status, 201, await minted.clone().text());
  const { api_key: key, bound_to: bound } = await minted.json();
  assert.deepEqual(bound, { jkt });
  let nonce;
  const ask = async (method, url, body) => {
    const proof = await dpop.generateProof(pair, url, method, nonce, key);
    const headers = { authorization: `DPoP ${key}`, dpop: proof, 'content-type': 'application/json' };
    const answer = await fetch(url, { method, headers, body });
    nonce = answer.headers.get('dpop-nonce') ?? nonce;
    return answer;
  };
  let answer = await ask('GET', keys);
  if (answer.status === 401 && (await answer.json()).error_code === 'use_dpop_nonce') answer = await ask('GET', keys);
  assert.equal(answer.status, 200);
  assert.equal((await ask('POST', keys, '{"duration_days": 1}')).status, 201);
  console.log(`key ${algorithm}`);
}
console.log('done');
