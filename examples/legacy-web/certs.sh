#!/bin/sh
# Puts a certificate where the tls sidecar of pod.yaml looks for one. Wants openssl.
#   certs.sh good         a new certificate with its key
#   certs.sh mismatched   a new certificate with the key of another
#   certs.sh none         takes them away
set -eu
dir=${LEGACY_WEB_CERTS:-/run/legacy-web}
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT

pair() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=legacy-web $1" \
        -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$new/$1.key" -out "$new/$1.crt" 2>"$new/said" ||
        { cat "$new/said" >&2; exit 1; }
}

# Each file appears whole: it is written beside the old one and renamed over it.
put() {
    mkdir -p "$dir"
    cp "$1" "$dir/.$2"
    chmod 600 "$dir/.$2"
    mv "$dir/.$2" "$dir/$2"
}

case "${1:-}" in
good) pair good && put "$new/good.crt" tls.crt && put "$new/good.key" tls.key ;;
mismatched) pair one && pair other && put "$new/one.crt" tls.crt && put "$new/other.key" tls.key ;;
none) rm -f "$dir/tls.crt" "$dir/tls.key" ;;
*) sed -n '2,5s/^# //p' "$0" >&2 && exit 2 ;;
esac
