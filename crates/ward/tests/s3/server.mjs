// An S3-compatible server on a free port of the loopback, with one bucket. It prints its port.
import S3rver from "s3rver";

const server = new S3rver({
  address: "127.0.0.1",
  port: 0,
  silent: true,
  directory: process.argv[2],
  configureBuckets: [{ name: "ward-exports", configs: [] }],
});
const { port } = await server.run();
console.log(`listening ${port}`);
