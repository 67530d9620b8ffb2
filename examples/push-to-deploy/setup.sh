#!/bin/sh
# Makes the bare repository, with a hook that tells git-sync of a push, and a first page in it.
set -eu
dir=${PUSH_TO_DEPLOY:-/run/push-to-deploy}
repository=$dir/site.git
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
echo '<!doctype html><title>Pushed</title><p>The first page.' >"$work/index.html"
git -C "$work" add index.html
git -C "$work" -c user.name=setup -c user.email=setup@localhost commit -q -m 'The first page'
git -C "$work" push -q "$repository" main
