//! From a failed opening handshake to its cause.

use arc_relay::internals::client::failure::{Answer, Failure};
use arc_relay::internals::client::tls::Certificates;
use http::StatusCode;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::cause;
use super::report::Fault;

/// The cause of a failure. The certificates are those of the last TLS handshake.
pub(super) fn fault_of(failure: &Failure, certificates: Option<&Certificates>) -> Fault {
    let cause = match failure {
        Failure::Lookup { .. } => &cause::NAME,
        Failure::Connect { .. } => &cause::UNREACHABLE,
        Failure::Tls(error) => return fault_of_tls(error, certificates),
        Failure::Refused(answer) => return Fault::new(cause_of_answer(answer), told(answer)),
        // HAProxy with HTTP/2 or TLS only ends the connection, or answers in its own protocol.
        Failure::Malformed(_) => &cause::NOT_ROUTED,
        Failure::Stream(_) | Failure::Timeout => &cause::NO_ANSWER,
    };
    Fault::new(cause, failure.to_string())
}

/// The answer as a line has it: with the place that a redirection leads to, but without its query.
fn told(answer: &Answer) -> String {
    match &answer.location {
        Some(location) => format!("{} to {}", answer.status.as_str(), location.split('?').next().unwrap_or_default()),
        None => answer.to_string(),
    }
}

/// Tells the relay's own answers, by their bodies, from those of a proxy.
fn cause_of_answer(answer: &Answer) -> &'static cause::Cause {
    let line = &*answer.line;
    match (answer.status.as_u16(), line) {
        (400, "missing or invalid pair code") => &cause::QUERY_LOST,
        (400, "HTTP/1.1 required") => &cause::HTTP_1_0,
        (400, line) if line.starts_with("Connection: Upgrade required") => &cause::UPGRADE_LOST,
        (400, "missing or invalid Sec-WebSocket-Key" | "exactly one Host header required") => &cause::UPGRADE_LOST,
        (404, line) if line.starts_with("not found: connect to /?pair=CODE") => &cause::UPGRADE_LOST,
        (426, "WebSocket version 13 required") => &cause::UPGRADE_LOST,
        (401, "access token required" | "invalid ticket") => &cause::TOKEN,
        (401, line) if line.starts_with("ticket ") => &cause::TOKEN,
        (429, _) | (503, "relay is full") => &cause::LIMITED,
        (503, "relay stopping") => &cause::STOPPING,
        (400, line) if line.contains("HTTPS") => &cause::TLS_NEEDED,
        (401 | 407, _) => &cause::AUTHENTICATION,
        (502..=504, _) => &cause::GATEWAY,
        (200..=299 | 404 | 405, _) => &cause::NOT_ROUTED,
        _ if answer.status.is_redirection() && answer.status != StatusCode::NOT_MODIFIED => &cause::REDIRECTED,
        // nginx has the sentence in the title, behind `<html>`.
        (400, "<html>") => &cause::TLS_NEEDED,
        _ => &cause::REFUSED,
    }
}

fn fault_of_tls(error: &std::io::Error, certificates: Option<&Certificates>) -> Fault {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return Fault::new(&cause::NO_TLS, format!("no TLS: {error}"));
    };
    let count = certificates.map_or(0, |certificates| certificates.count);
    match error {
        Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Fault::new(&cause::CERTIFICATE_NAME, certificate.to_string())
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                Fault::new(&cause::CERTIFICATE_EXPIRED, certificate.to_string())
            }
            CertificateError::UnknownIssuer if count == 1 => {
                Fault::new(&cause::CERTIFICATE_ISSUER, "one certificate came, and no known authority has signed it")
            }
            CertificateError::UnknownIssuer => Fault::new(
                &cause::CERTIFICATE_ISSUER,
                format!("{count} certificates came, and none leads to a known authority"),
            ),
            other => Fault::new(&cause::CERTIFICATE_INVALID, format!("the certificate is invalid: {other}")),
        },
        Error::NoApplicationProtocol | Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            Fault::new(&cause::HTTP2_ONLY, "the server does not speak HTTP/1.1")
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            Fault::new(&cause::NO_TLS, "the server answers in plain text")
        }
        other => Fault::new(&cause::NO_TLS, format!("no TLS: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_relay_are_told_from_those_of_a_proxy() {
        for (status, line, expected) in [
            (400, "missing or invalid pair code", "query_lost"),
            (400, "Connection: Upgrade required (a proxy has to pass it on)", "upgrade_lost"),
            (404, "not found: connect to /?pair=CODE with a WebSocket", "upgrade_lost"),
            (404, "<html>", "not_routed"),
            (200, "<!doctype html>", "not_routed"),
            (401, "access token required", "token"),
            (401, "invalid ticket", "token"),
            (401, "ticket expired", "token"),
            (401, "<html>", "authentication"),
            (400, "Client sent an HTTP request to an HTTPS server.", "tls_needed"),
            (403, "<html>", "refused"),
            (429, "too many requests", "limited"),
            (502, "<html>", "gateway"),
            (503, "<html><body><h1>503 Service Unavailable</h1>", "gateway"),
            (503, "relay is full", "limited"),
            (503, "relay stopping", "stopping"),
            (301, "", "redirected"),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let answer = Answer { status, location: None, retry_after: None, line: line.to_owned() };
            assert_eq!(cause_of_answer(&answer).name, expected, "{answer}");
        }
    }

    #[test]
    fn place_of_a_redirection_is_told_without_its_query() {
        let location = Some(String::from("https://a/?pair=secret"));
        let answer = Answer { status: StatusCode::FOUND, location, retry_after: None, line: String::new() };
        assert_eq!(told(&answer), "302 to https://a/");
    }
}
