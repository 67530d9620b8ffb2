#!/bin/sh
# Makes the bare repository, with a hook that tells git-sync of a push, and a first version of the program in it.
set -eu
dir=${NODE_PAAS:-/run/node-paas}
repository=$dir/app.git
mkdir -p "$dir"
git init -q --bare --initial-branch=main "$repository"
cat >"$repository/hooks/post-receive" <<'HOOK'
#!/bin/sh
# Says at once that there is something new; without an answer the period is waited for.
curl -s -o /dev/null -m 2 -X POST -H 'X-Gitlab-Token: try-me' http://127.0.0.1:9653/ || true
HOOK
chmod +x "$repository/hooks/post-receive"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git -C "$work" init -q --initial-branch=main
cat >"$work/server.js" <<'PROGRAM'
const http = require('node:http');

http.createServer((request, response) => {
  response.end('The first version.\n');
}).listen(process.env.PORT);
PROGRAM
git -C "$work" add server.js
git -C "$work" -c user.name=setup -c user.email=setup@localhost commit -q -m 'The first version'
git -C "$work" push -q "$repository" main
