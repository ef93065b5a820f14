// An HTTP server on sockets that it inherits, for configs/node.yaml:
// node server.js FD [PROBE_FD]
'use strict';

const http = require('node:http');

const answer = (req, res) => {
  res.setHeader('content-type', 'application/json');
  if (leaving) res.setHeader('connection', 'close'); // tells the client before the connection goes
  res.end(JSON.stringify({
    path: req.url,
    pid: process.pid,
    slot: process.env.PREFORKD_SLOT,
    generation: process.env.PREFORKD_GENERATION,
  }));
};

let leaving = false;
const [fd, probe] = process.argv.slice(2).map(Number);
const server = http.createServer(answer).listen({ fd });
const health = probe ? http.createServer(answer).listen({ fd: probe }) : null;

// Finish what is in flight, then end: connections that stay idle are closed after a second.
process.on('SIGTERM', () => {
  leaving = true;
  server.close(() => process.exit(0));
  if (health) health.close();
  setTimeout(() => server.closeIdleConnections(), 1000);
});
