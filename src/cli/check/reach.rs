//! The way to the server: its name, its addresses, its certificate.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use arc_relay::internals::client::dial;
use arc_relay::internals::client::failure::Failure;
use rustls::pki_types::UnixTime;
use serde_json::json;

use super::cause;
use super::context::{Context, OPENING};
use super::diagnosis::fault_of;
use super::report::{Fault, Found, shown};

/// The least part of its time that a certificate should still be valid, as a divisor.
///
/// Certificates are renewed when a third is left: certbot's of 90 days 30 days before their end.
const LEAST_PART: u64 = 6;

/// An hour and a day in seconds.
const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;

/// Whether the name has addresses, and each of them accepts.
pub(super) async fn reach(context: &Context<'_>) -> bool {
    context.report.doing(|| String::from("looking up the name"));
    let addresses = match dial::within(OPENING, dial::addresses(context.target)).await {
        Ok(addresses) => addresses,
        Err(failure) => {
            let fault = Fault { cause: &cause::NAME, ..fault_of(&failure, None) };
            return context.report.add("name", Err(fault));
        }
    };
    let list = addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>();
    let values = json!({ "addresses": list });
    context.report.add("name", Ok(Found { detail: format!("{} is {}", context.target.host, list.join(", ")), values }));
    context.report.doing(|| String::from("connecting"));
    let connected = connect(context, &addresses).await;
    context.report.add("connection", connected)
}

/// Connects to each address: a client may choose any of them.
async fn connect(context: &Context<'_>, addresses: &[SocketAddr]) -> Result<Found, Fault> {
    let (mut accepted, mut failed, mut absent, mut longest) = (Vec::new(), Vec::new(), Vec::new(), Duration::ZERO);
    for &address in addresses {
        let begin = Instant::now();
        let ip = address.ip().to_string();
        match dial::within(OPENING / 2, dial::connect_to(address)).await {
            Ok(_) => {
                longest = longest.max(begin.elapsed());
                accepted.push(ip);
            }
            Err(Failure::Connect { error, .. })
                if matches!(error.kind(), ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable) =>
            {
                absent.push(ip);
            }
            Err(failure) => failed.push(failure.to_string()),
        }
    }
    context.connect_time.set(longest);
    if !failed.is_empty() {
        return Err(Fault::new(&cause::UNREACHABLE, failed.join("; ")));
    }
    if accepted.is_empty() {
        return Err(Fault::new(&cause::UNREACHABLE, format!("this machine has no way to {}", absent.join(", "))));
    }
    let mut detail = format!("{} accepts in {}", accepted.join(", "), shown(longest));
    if !absent.is_empty() {
        detail += &format!("; this machine has no way to {}", absent.join(", "));
    }
    Ok(Found { detail, values: json!({ "seconds": longest.as_secs_f64() }) })
}

/// Whether the certificate is for the name, of a known authority, and valid for some time.
pub(super) async fn certificate(context: &Context<'_>) -> bool {
    if !context.target.is_secure {
        context.report.skip("certificate", "the URL is without TLS");
        return true;
    }
    context.report.doing(|| String::from("asking for the certificate"));
    let opened = dial::within(OPENING, dial::open(context.target, context.tls)).await;
    let certificates = context.tls.certificates();
    let checked = match opened {
        Ok(_) => {
            let validity = certificates.and_then(|certificates| certificates.validity);
            still_valid(&context.target.host, validity.unwrap_or_default(), UnixTime::now().as_secs())
        }
        Err(failure) => Err(fault_of(&failure, certificates.as_ref())),
    };
    context.report.add("certificate", checked)
}

/// Whether a certificate that is valid will be so for some time.
fn still_valid(host: &str, validity: Range<u64>, now: u64) -> Result<Found, Fault> {
    let (left, whole) = (validity.end.saturating_sub(now), validity.end - validity.start);
    let shown = if left < 2 * DAY { format!("{} hours", left / HOUR) } else { format!("{} days", left / DAY) };
    let detail = format!("for {host}, of a known authority, valid for {shown}");
    match left < whole / LEAST_PART {
        true => Err(Fault::warning(&cause::CERTIFICATE_EXPIRED, format!("{detail}, and not renewed"))),
        false => Ok(Found { detail, values: json!({ "seconds": left }) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_that_expires_soon_is_a_warning() {
        let days = |left: u64| still_valid("a", 0..90 * DAY, 90 * DAY - left * DAY);
        assert!(days(14).is_err_and(|fault| fault.is_warning && fault.detail.contains("valid for 14 days")));
        assert_eq!(days(15).expect("a sixth is enough").values["seconds"], 15 * DAY);
        // As Caddy makes them for itself.
        let hours = |left: u64| still_valid("a", 0..12 * HOUR, 12 * HOUR - left * HOUR);
        assert!(hours(1).is_err());
        assert!(hours(2).is_ok_and(|found| found.detail.contains("valid for 2 hours")));
    }
}
