# nginx, Caddy and HAProxy in front of the relay, each with its configuration in deploy/ except for ports and paths. To
# be sourced after checks.bash. A script calls `ports` and one of the three `..._in_front`, and starts "${proxy[@]}".
# The proxy listens at $tls with a certificate that $ca has signed, and forwards to $upstream.

need nginx nginx
need caddy caddy
need haproxy haproxy
need openssl openssl

# $relay is the relay to test: $ARC_RELAY_BIN, or else the release build.
relay=${ARC_RELAY_BIN:-}
unset ARC_RELAY_BIN # the relay would warn of a variable that it does not know
if [ -z "$relay" ]; then
    relay=${CARGO_TARGET_DIR:-target}/release/arc-relay
    [ -x "$relay" ] || cargo build --release --locked
fi

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -keyout "$work/key.pem" -out "$work/cert.pem" 2>"$work/openssl.log"
cat "$work/cert.pem" "$work/key.pem" >"$work/both.pem"

# ports: sets $upstream, $tls and $plain to free ports.
ports() {
    upstream=$(free_port)
    proxy_ports
}

# proxy_ports: sets $tls and $plain, for one more proxy in front of the same relay.
proxy_ports() {
    tls=$(free_port)
    plain=$(free_port)
}

nginx_in_front() {
    sed -e "s|listen 80;|listen 127.0.0.1:$plain;|" \
        -e "s|listen 443 |listen 127.0.0.1:$tls |" \
        -e "s|relay:8765|127.0.0.1:$upstream|" \
        -e "s|/var/log/nginx/access.log|$work/nginx-access.log|" \
        -e "s|/var/log/nginx/error.log|$work/nginx-error.log|" \
        -e "s|/etc/letsencrypt/live/relay/fullchain.pem|$work/cert.pem|" \
        -e "s|/etc/letsencrypt/live/relay/privkey.pem|$work/key.pem|" deploy/nginx.conf >"$work/nginx.conf"
    ca=$work/cert.pem
    proxy=(nginx -c "$work/nginx.conf" -g "daemon off; pid $work/nginx.pid;")
}

# Caddy signs its own certificates for localhost. It must not add its authority to those that this machine trusts.
caddy_in_front() {
    local here="skip_install_trust\n\tadmin off\n\tdefault_bind 127.0.0.1\n\thttp_port $plain"
    sed -e "s|auto_https disable_redirects|&\n\t$here|" deploy/Caddyfile >"$work/Caddyfile"
    ca=$work/caddy/pki/authorities/local/root.crt
    proxy=(env RELAY_DOMAIN=https://localhost:"$tls" RELAY_UPSTREAM=127.0.0.1:"$upstream"
        XDG_DATA_HOME="$work" XDG_CONFIG_HOME="$work"
        caddy run --adapter caddyfile --config "$work/Caddyfile")
}

# haproxy_in_front [SED_ARGUMENT...]: the arguments are further replacements in the configuration.
haproxy_in_front() {
    sed -e "s|bind :443|bind 127.0.0.1:$tls|" \
        -e "s|127.0.0.1:8765|127.0.0.1:$upstream|" \
        -e "s|/etc/haproxy/relay.pem|$work/both.pem|" "$@" deploy/haproxy.cfg >"$work/haproxy.cfg"
    ca=$work/cert.pem
    proxy=(haproxy -db -f "$work/haproxy.cfg")
}
