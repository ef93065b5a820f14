// A tiny HTTP server under pm2 in cluster mode, or on a socket that it inherits from
// preforkd (LISTEN_FDS, sd_listen_fds(3)). version.py has what the words in VERSION_FILE
// mean. It tells pm2 when it listens, as wait_ready asks for, and finishes what is in flight
// when it is told to stop: by SIGINT under pm2, by SIGTERM under preforkd.
const fs = require('fs');
const http = require('http');

const word = fs.readFileSync(process.env.VERSION_FILE, 'utf8').trim();
const worker = `app/0/${process.pid}`;

function serve() {
  const server = http.createServer((request, response) => {
    response.writeHead(200, { 'Content-Length': 2, 'X-Preforkd-Worker': worker });
    response.end('ok');
  });
  server.listen(process.env.LISTEN_FDS ? { fd: 3 } : { port: Number(process.env.PORT), host: '127.0.0.1' }, () => {
    if (process.send) process.send('ready');
  });
  for (const signal of ['SIGINT', 'SIGTERM']) {
    process.on(signal, () => {
      server.close(() => process.exit(0));
      server.closeIdleConnections();
    });
  }
}

switch (word) {
  case 'ok':
    serve();
    break;
  case 'slow':
    setTimeout(serve, 6000);
    break;
  case 'fail':
    throw new Error('this version fails at boot');
  case 'hang':
    setTimeout(() => {}, 1000000);
    break;
  case 'crash':
    serve();
    setTimeout(() => process.kill(process.pid, 'SIGSEGV'), 500);
    break;
  default:
    throw new Error(`${word} is no version`);
}
