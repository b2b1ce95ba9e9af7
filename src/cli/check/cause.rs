//! What can be wrong, and the directives that mend it.
//!
//! The name of a cause is stable, for programs. docs/commands.md has the table of all.

/// Why a check has failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) name: &'static str,
    /// Programs, and what to write in their configuration or on their command line.
    pub(super) remedies: &'static [(&'static str, &'static str)],
}

/// Declares causes, and a list of all.
macro_rules! causes {
    ($($cause:ident = $name:literal { $($program:literal: $remedy:literal,)* })+) => {
        $(pub(super) static $cause: Cause = Cause { name: $name, remedies: &[$(($program, $remedy)),*] };)+
        #[cfg(test)]
        static ALL: &[&Cause] = &[$(&$cause),+];
    };
}

causes! {
    NAME = "name" {
        "DNS": "add a record A or AAAA for the name",
    }
    UNREACHABLE = "unreachable" {
        "nginx": "listen 443 ssl;",
        "Caddy": "relay.example.org { reverse_proxy 127.0.0.1:8765 }",
        "HAProxy": "bind :443 ssl crt /etc/haproxy/relay.pem",
        "firewall": "let TCP to this port pass",
    }
    NO_TLS = "no_tls" {
        "nginx": "listen 443 ssl;",
        "Caddy": "a site address without http://",
        "HAProxy": "bind :443 ssl crt /etc/haproxy/relay.pem",
    }
    TLS_NEEDED = "tls_needed" {
        "URL": "wss:// in place of ws://",
    }
    HTTP2_ONLY = "http2_only" {
        "nginx": "without `http2 on;`, or a proxy in front that passes HTTP/1.1 on",
        "Caddy": "servers { protocols h1 h2 }",
        "HAProxy": "bind :443 ssl crt /etc/haproxy/relay.pem alpn http/1.1",
    }
    CERTIFICATE_NAME = "certificate_name" {
        "nginx": "server_name and ssl_certificate of the name in the URL",
        "Caddy": "a site address with the name in the URL",
        "HAProxy": "bind :443 ssl crt FILE, with a certificate for the name in the URL",
    }
    CERTIFICATE_EXPIRED = "certificate_expired" {
        "nginx": "renew the certificate (certbot renew), then nginx -s reload",
        "Caddy": "open ports 80 and 443 to the internet, so that Caddy can renew it",
        "HAProxy": "renew the certificate, write it to the file of crt, then reload",
    }
    CERTIFICATE_ISSUER = "certificate_issuer" {
        "nginx": "ssl_certificate fullchain.pem; (with the intermediate certificates)",
        "Caddy": "no `tls internal`, for a certificate of a public authority",
        "HAProxy": "crt FILE with certificate, intermediate certificates and key",
        "arc-relay check": "--ca-file FILE, if the authority is your own",
    }
    CERTIFICATE_INVALID = "certificate_invalid" {
        "all": "a certificate for servers, which is not that of an authority",
    }
    REDIRECTED = "redirected" {
        "nginx": "no `return 301` in the server or location of the relay",
        "Caddy": "auto_https disable_redirects, and no redir",
        "HAProxy": "no `http-request redirect`",
    }
    UPGRADE_LOST = "upgrade_lost" {
        "nginx": "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";",
        "Caddy": "no header_up for Upgrade, Connection and Sec-WebSocket-*",
        "HAProxy": "mode http, and no http-request del-header for Upgrade, Connection and Sec-WebSocket-*",
    }
    HTTP_1_0 = "http_1_0" {
        "nginx": "proxy_http_version 1.1;",
        "Caddy": "transport http { versions 1.1 }",
        "HAProxy": "no `option http-pretend-keepalive` and no version in http-request set-uri",
    }
    QUERY_LOST = "query_lost" {
        "nginx": "proxy_pass http://127.0.0.1:8765; (without a path or variables behind it), and no rewrite with ? at its end",
        "Caddy": "no `uri` or `rewrite` that drops the query: rewrite * {path}?{query}",
        "HAProxy": "no http-request set-query, and http-request set-path in place of set-uri",
    }
    RELAY_DOWN = "relay_down" {
        "relay": "arc-relay start, at the address that the proxy forwards to",
    }
    GATEWAY = "gateway" {
        "relay": "start it, if arc-relay health says on its machine that it is down",
        "nginx": "proxy_pass http://127.0.0.1:8765; and proxy_http_version 1.1;",
        "Caddy": "reverse_proxy 127.0.0.1:8765, without h2c:// and `versions h2c`",
        "HAProxy": "server relay 127.0.0.1:8765, without `proto h2`",
    }
    UPSTREAM = "upstream" {
        "nginx": "proxy_pass http://127.0.0.1:8765; and proxy_http_version 1.1;",
        "Caddy": "reverse_proxy 127.0.0.1:8765, without h2c:// and `versions h2c`",
        "HAProxy": "server relay 127.0.0.1:8765, without `proto h2`",
    }
    NOT_ROUTED = "not_routed" {
        "nginx": "location / { proxy_pass http://127.0.0.1:8765; } in the server of this name",
        "Caddy": "reverse_proxy 127.0.0.1:8765 in the site of this name, without a matcher",
        "HAProxy": "use_backend relay, or default_backend relay, for this name and path",
    }
    TOKEN = "token" {
        "arc-relay check": "--token-file FILE, with a token of the relay's --access-token-file",
        "nginx": "no proxy_set_header Authorization",
        "Caddy": "no header_up for Authorization",
        "HAProxy": "no http-request del-header Authorization",
    }
    AUTHENTICATION = "authentication" {
        "nginx": "auth_basic off; in the location of the relay",
        "Caddy": "no basic_auth and forward_auth for the relay",
        "HAProxy": "no http-request auth for the relay",
    }
    LIMITED = "limited" {
        "relay": "raise --max-joins-per-minute, --max-connections-per-client or --max-connections, or come again later",
        "relay behind a proxy": "--trusted-proxies, or all clients count as one",
    }
    STOPPING = "stopping" {
        "relay": "wait until it has started again",
    }
    REFUSED = "refused" {
        "all": "the answer says what is refused; the proxy's log says by which rule",
    }
    NO_ANSWER = "no_answer" {
        "nginx": "error_log and the address in proxy_pass: it may lead to a host that drops packets",
        "Caddy": "the address of reverse_proxy",
        "HAProxy": "timeout connect 5s, and the address of server, without `proto h2`",
    }
    NOT_MET = "not_met" {
        "nginx": "upstream relay { hash $arg_pair consistent; ... }",
        "Caddy": "lb_policy query pair",
        "HAProxy": "balance url_param pair, and hash-type consistent",
    }
    BUFFERED = "buffered" {
        "nginx": "proxy_buffering off;",
        "Caddy": "flush_interval -1",
        "HAProxy": "option http-no-delay, and no option http-buffer-request",
        "others": "no scanner or accelerator that collects small messages",
    }
    CODE_DECODED = "code_decoded" {
        "nginx": "proxy_pass http://127.0.0.1:8765; and no rewrite of $args",
        "Caddy": "no uri and rewrite of the query",
        "HAProxy": "no url_dec in http-request set-query or set-uri",
    }
    CODE_ENCODING = "code_encoding" {
        "clients": "codes of letters, digits, - and _ only, which need no encoding",
        "HAProxy": "balance hash url_param(pair),url_dec",
    }
    THIRD_ADMITTED = "third_admitted" {
        "nginx": "upstream relay { hash $arg_pair consistent; ... }",
        "Caddy": "lb_policy query pair",
        "HAProxy": "balance url_param pair, and hash-type consistent",
    }
    SUBPROTOCOL_LOST = "subprotocol_lost" {
        "nginx": "no proxy_set_header Sec-WebSocket-Protocol \"\", and no proxy_hide_header for it",
        "Caddy": "no header_up and header_down for Sec-WebSocket-Protocol",
        "HAProxy": "no del-header for Sec-WebSocket-Protocol",
    }
    TEXT_FORWARDED = "text_forwarded" {
        "all": "the server behind this URL is no arc-relay",
    }
    RELAY_LIMIT = "relay_limit" {
        "relay": "raise --max-message",
    }
    MESSAGE_LIMIT = "message_limit" {
        "nginx": "none of its directives limits a WebSocket, and neither does one of Caddy or HAProxy",
        "others": "no limit on bodies or messages for this path (WAF, CDN, API gateway)",
    }
    MESSAGE_CHANGED = "message_changed" {
        "all": "no scanner or filter that rewrites WebSockets",
    }
    SILENCE_CUT = "silence_cut" {
        "nginx": "proxy_read_timeout 1d; proxy_send_timeout 1d;",
        "Caddy": "no stream_timeout, read_timeout and write_timeout",
        "HAProxy": "timeout tunnel 1d",
        "relay": "a --ping-interval that is shorter than the silence",
    }
    CLOSE_LOST = "close_lost" {
        "nginx": "proxy_pass in a location, and no `stream` with proxy_timeout",
        "Caddy": "stream_close_delay, if it happens while Caddy reloads",
        "HAProxy": "timeout client-fin and server-fin of 10s, and no option nolinger",
    }
    LOST = "lost" {
        "all": "the logs of proxy and relay from this minute",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn causes_are_those_in_the_document() {
        let document = include_str!("../../../docs/commands.md");
        let rows = document.split("| cause | what was found |\n|---|---|\n").nth(1).expect("the table of causes");
        let rows = rows.lines().take_while(|line| line.starts_with('|'));
        let listed: BTreeSet<_> = rows.filter_map(|row| row.split('`').nth(1)).collect();
        let names: Vec<_> = ALL.iter().map(|cause| cause.name).collect();
        assert_eq!(names.iter().copied().collect::<BTreeSet<_>>(), listed);
        assert_eq!(names.len(), listed.len(), "names are unique");
    }

    #[test]
    fn each_cause_has_a_remedy() {
        for cause in ALL {
            assert!(!cause.remedies.is_empty(), "{}", cause.name);
        }
    }
}
