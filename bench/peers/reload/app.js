// A tiny HTTP server under pm2 in cluster mode; version.py has what the words in
// VERSION_FILE mean. It tells pm2 when it listens, as wait_ready asks for, and finishes
// what is in flight when it is told to stop.
const fs = require('fs');
const http = require('http');

const word = fs.readFileSync(process.env.VERSION_FILE, 'utf8').trim();
const worker = `app/0/${process.pid}`;

function serve() {
  const server = http.createServer((request, response) => {
    response.writeHead(200, { 'Content-Length': 2, 'X-Preforkd-Worker': worker });
    response.end('ok');
  });
  server.listen(Number(process.env.PORT), '127.0.0.1', () => process.send('ready'));
  process.on('SIGINT', () => {
    server.close(() => process.exit(0));
    server.closeIdleConnections();
  });
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
