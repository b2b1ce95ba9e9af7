//! Tickets against known answers, a naive model, and every kind of forgery.

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signer, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use serde_json::json;

use super::super::ticket_keys::ED25519_DER;
use super::*;

const SECRET: &[u8; 32] = b"a secret of thirty-two bytes ...";
const SEED: &[u8; 32] = b"a seed of thirty-two bytes, too.";
const NOW: f64 = 1_800_000_000.0;

fn encode(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(bytes)
}

fn public_key() -> [u8; 32] {
    SigningKey::from_bytes(SEED).verifying_key().to_bytes()
}

/// Keys of both algorithms.
fn keys() -> TicketKeys {
    format!("hs256 {}\ned25519 {} blue\n", encode(SECRET), encode(&public_key())).parse().unwrap()
}

fn mac(secret: &[u8], message: &[u8]) -> Vec<u8> {
    Hmac::<Sha256>::new_from_slice(secret).unwrap().chain_update(message).finalize().into_bytes().to_vec()
}

fn signature(secret_key: &[u8; 32], message: &[u8]) -> Vec<u8> {
    SigningKey::from_bytes(secret_key).sign(message).to_bytes().to_vec()
}

/// A ticket with this header and these claims, and what `sign` makes of them.
fn ticket(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
    let signature = sign(signed.as_bytes());
    format!("{signed}.{}", encode(&signature))
}

/// A ticket with these claims and a good signature.
fn good(claims: &Value, is_hs256: bool) -> String {
    match is_hs256 {
        true => ticket(&json!({"alg": "HS256"}), claims, |message| mac(SECRET, message)),
        false => ticket(&json!({"alg": "EdDSA"}), claims, |message| signature(SEED, message)),
    }
}

/// A request for `target`.
fn join(target: &str) -> Join {
    Join::from_target(target).unwrap()
}

fn judge(ticket: &str, keys: &TicketKeys) -> Result<Grant, TicketFault> {
    judge_bytes(ticket.as_bytes(), keys)
}

fn judge_bytes(ticket: &[u8], keys: &TicketKeys) -> Result<Grant, TicketFault> {
    check(ticket, Some(&join("/?pair=code")), keys, Duration::from_secs_f64(NOW))
}

/// RFC 7515, appendix A.1: a token with `exp`, and others' claims.
#[test]
fn ticket_of_rfc_7515_is_valid_until_it_expires() {
    let ticket = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leG\
                  FtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    let keys = format!("hs256 {secret}").parse().unwrap();
    let at = |milliseconds| check(ticket.as_bytes(), None, &keys, Duration::from_millis(milliseconds));
    assert_eq!(at(0), Ok(Grant::default()));
    assert_eq!(at(1_300_819_384_999), Ok(Grant::default()), "5 s for clocks that differ");
    assert_eq!(at(1_300_819_385_000), Err(TicketFault::Expired));
}

#[test]
fn each_algorithm_has_its_names() {
    let claims = json!({"exp": NOW});
    assert_eq!(judge(&good(&claims, true), &keys()), Ok(Grant::default()));
    assert_eq!(judge(&good(&claims, false), &keys()), Ok(Grant::default()));
    let signed = |name| ticket(&json!({"alg": name, "typ": "JWT"}), &claims, |message| signature(SEED, message));
    assert_eq!(judge(&signed("Ed25519"), &keys()), Ok(Grant::default()));
    for name in ["ED25519", "eddsa", "Ed448", "ES256", "HS256", "HS512", "RS256", "none", ""] {
        assert_eq!(judge(&signed(name), &keys()), Err(TicketFault::Invalid), "{name}");
    }
}

#[test]
fn public_key_is_no_secret() {
    let claims = json!({"exp": NOW});
    let only_public: TicketKeys = format!("ed25519 {}", encode(&public_key())).parse().unwrap();
    let der = [&ED25519_DER[..], &public_key()].concat();
    for secret in [&public_key()[..], &der, encode(&public_key()).as_bytes()] {
        for name in ["HS256", "EdDSA", "Ed25519"] {
            let forged = ticket(&json!({"alg": name}), &claims, |message| mac(secret, message));
            assert_eq!(judge(&forged, &only_public), Err(TicketFault::Invalid), "{name}");
        }
    }
    assert_eq!(judge(&good(&claims, false), &only_public), Ok(Grant::default()));
}

#[test]
fn ticket_without_a_signature_is_invalid() {
    let claims = json!({"exp": NOW});
    for name in ["none", "None", "NONE", "HS256", "EdDSA"] {
        assert_eq!(judge(&ticket(&json!({"alg": name}), &claims, |_| vec![]), &keys()), Err(TicketFault::Invalid));
    }
}

#[test]
fn key_id_chooses_among_the_keys_that_have_one() {
    let claims = json!({"exp": NOW});
    let named = |id: Value, is_hs256| match is_hs256 {
        true => ticket(&json!({"alg": "HS256", "kid": id}), &claims, |message| mac(SECRET, message)),
        false => ticket(&json!({"alg": "EdDSA", "kid": id}), &claims, |message| signature(SEED, message)),
    };
    assert_eq!(judge(&named(json!("blue"), false), &keys()), Ok(Grant::default()));
    assert_eq!(judge(&named(json!("red"), false), &keys()), Err(TicketFault::Invalid));
    assert_eq!(judge(&named(json!("red"), true), &keys()), Ok(Grant::default()), "this key has no name");
    for no_name in [json!(null), json!(1), json!(["blue"])] {
        assert_eq!(judge(&named(no_name, false), &keys()), Err(TicketFault::Invalid));
    }
}

#[test]
fn header_with_critical_extensions_is_invalid() {
    for critical in [json!(["b64"]), json!([]), json!(null)] {
        let header = json!({"alg": "HS256", "crit": critical, "b64": true});
        let ticket = ticket(&header, &json!({"exp": NOW}), |message| mac(SECRET, message));
        assert_eq!(judge(&ticket, &keys()), Err(TicketFault::Invalid));
    }
}

#[test]
fn claim_of_a_wrong_type_does_not_count_as_missing() {
    for (name, wrong) in [
        ("exp", json!("1900000000")),
        ("exp", json!(null)),
        ("nbf", json!("0")),
        ("nbf", json!(null)),
        ("aud", json!(null)),
        ("aud", json!(["arc-relay", 1])),
        ("pair", json!(null)),
        ("pair", json!(7)),
        ("pair", json!(["code"])),
        ("pair_sha256", json!(null)),
        ("pair_sha256", json!(encode(&[0; 31]))),
        ("pair_sha256", json!("5694d08a2e53ffcae0c3103e5ad6f6076abd960eb1f8a56577040bc1028f702b")),
        ("side", json!(null)),
        ("side", json!("")),
        ("side", json!("x".repeat(65))),
        ("side", json!(1)),
        ("rate", json!(null)),
        ("rate", json!(0)),
        ("rate", json!(-1)),
        ("rate", json!(1.5)),
        ("rate", json!("1024")),
    ] {
        let mut claims = json!({"exp": NOW});
        claims[name] = wrong;
        assert_eq!(judge(&good(&claims, true), &keys()), Err(TicketFault::Invalid), "{claims}");
    }
}

#[test]
fn what_is_no_object_in_base64url_is_invalid() {
    let of = |header: &str, claims: &str| {
        let signed = format!("{header}.{claims}");
        let signature = mac(SECRET, signed.as_bytes());
        format!("{signed}.{}", encode(&signature))
    };
    let header = encode(br#"{"alg":"HS256"}"#);
    let claims = encode(br#"{"exp":1800000000}"#);
    assert_eq!(judge(&of(&header, &claims), &keys()), Ok(Grant::default()));
    for (header, claims) in [
        (&*header, &*encode(b"")),
        (&header, &encode(b"[]")),
        (&header, &encode(b"null")),
        (&header, &encode(br#"{"exp":1800000000}x"#)),
        (&header, &encode(b"{\"exp\":1800000000,\"x\":\"\xFF\"}")),
        (&header, r#"{"exp":1800000000}"#),
        (&header, &format!("{claims}=")),
        (&encode(b"{}"), &claims),
        (&encode(br#"{"alg":["HS256"]}"#), &claims),
        ("", &claims),
    ] {
        assert_eq!(judge(&of(header, claims), &keys()), Err(TicketFault::Invalid), "{claims}");
    }
    let whole = of(&header, &claims);
    for broken in
        [String::new(), "..".into(), "....".into(), format!("{whole}."), format!(".{whole}"), header + "." + &claims]
    {
        assert_eq!(judge(&broken, &keys()), Err(TicketFault::Invalid), "{broken}");
    }
}

#[test]
fn ticket_has_a_longest_length() {
    let of = |padding: usize| good(&json!({"exp": NOW, "x": "y".repeat(padding)}), true);
    let longest = (0..).find(|&padding| of(padding + 1).len() > MOST_BYTES).unwrap();
    assert_eq!(judge(&of(longest), &keys()), Ok(Grant::default()));
    assert_eq!(judge(&of(longest + 1), &keys()), Err(TicketFault::Invalid));
}

#[test]
fn later_one_of_two_equal_names_counts() {
    let signed = format!("{}.{}", encode(br#"{"alg":"HS256"}"#), encode(br#"{"exp":1900000000,"exp":1700000000}"#));
    let ticket = format!("{signed}.{}", encode(&mac(SECRET, signed.as_bytes())));
    assert_eq!(judge(&ticket, &keys()), Err(TicketFault::Expired));
}

#[test]
fn faults_are_told_in_one_line_that_fits_into_a_close_frame() {
    use TicketFault::*;
    for fault in [Invalid, NoExpiry, Milliseconds, Expired, NotYetValid, OtherAudience, OtherPair, OtherSide] {
        assert!((1..=123).contains(&fault.line().len()) && !fault.line().contains('\n'));
    }
}

/// The claims of a test, each of which may be missing.
#[derive(Clone, Debug)]
struct Given {
    expiry: Option<f64>,
    not_before: Option<f64>,
    audience: Option<Value>,
    pair: Option<&'static str>,
    pair_sha256: Option<&'static str>,
    side: Option<&'static str>,
    rate: Option<u64>,
}

impl Given {
    fn claims(&self) -> Value {
        let mut claims = json!({"sub": "ignored", "iat": "ignored, too"});
        let fields = claims.as_object_mut().unwrap();
        let mut put = |name: &str, value: Option<Value>| value.map(|value| fields.insert(name.into(), value));
        put("exp", self.expiry.map(|time| json!(time)));
        put("nbf", self.not_before.map(|time| json!(time)));
        put("aud", self.audience.clone());
        put("pair", self.pair.map(|code| json!(code)));
        put("pair_sha256", self.pair_sha256.map(|code| json!(encode(&Sha256::digest(code)))));
        put("side", self.side.map(|side| json!(side)));
        put("rate", self.rate.map(|rate| json!(rate)));
        claims
    }

    /// What the document says of such a ticket, sentence by sentence.
    fn expected(&self, code: Option<&str>, side: Option<&str>, has_signed: bool) -> Result<Grant, TicketFault> {
        let Some(expiry) = self.expiry else { return Err(TicketFault::NoExpiry) };
        if expiry >= 100_000_000_000.0 {
            return Err(TicketFault::Milliseconds);
        }
        if NOW - expiry >= 5.0 {
            return Err(TicketFault::Expired);
        }
        if self.not_before.is_some_and(|begin| begin - NOW > 5.0) {
            return Err(TicketFault::NotYetValid);
        }
        let audience = self.audience.as_ref().map(Value::to_string);
        if audience.is_some_and(|audience| !audience.contains("\"arc-relay\"")) {
            return Err(TicketFault::OtherAudience);
        }
        if code.is_some() && [self.pair, self.pair_sha256].into_iter().flatten().any(|pair| Some(pair) != code) {
            return Err(TicketFault::OtherPair);
        }
        if code.is_some() && side.is_some() && self.side.is_some() && side != self.side {
            return Err(TicketFault::OtherSide);
        }
        match has_signed {
            true => Ok(Grant {
                side: self.side.map(|side| join(&format!("/?pair=x&side={side}")).side.unwrap()),
                rate: self.rate.map(|rate| rate.try_into().unwrap()),
            }),
            false => Err(TicketFault::Invalid),
        }
    }
}

/// Times about now, and some far away.
fn time() -> impl Strategy<Value = f64> {
    let near = (-8..=8_i32).prop_map(|seconds| NOW + f64::from(seconds));
    let nearer = (-6000..=6000_i32).prop_map(|milliseconds| NOW + f64::from(milliseconds) / 1000.0);
    let far = prop::sample::select(vec![-1.0, 0.0, 2.0 * NOW, 1000.0 * NOW, 1e11, 99_999_999_999.0, 1e300]);
    prop_oneof![3 => near, 2 => nearer, 1 => far]
}

fn given() -> impl Strategy<Value = Given> {
    // Mostly valid: with a fault in each claim only the first would ever show.
    let expiry = prop::option::weighted(0.9, prop_oneof![3 => Just(NOW + 60.0), 2 => time()]);
    let not_before = prop::option::of(prop_oneof![2 => Just(NOW), 1 => time()]);
    let audiences = vec![json!("arc-relay"), json!(["x", "arc-relay"]), json!("x"), json!("arc-relay.v1"), json!([])];
    let audience = prop::option::weighted(0.3, prop::sample::select(audiences));
    let codes = || prop::option::of(prop::sample::select(vec!["code", "code", "code", "Code", "cod", "code\0", ""]));
    let rate = prop::option::of(1..u64::MAX);
    (expiry, not_before, audience, codes(), codes(), side(), rate).prop_map(
        |(expiry, not_before, audience, pair, pair_sha256, side, rate)| Given {
            expiry,
            not_before,
            audience,
            pair,
            pair_sha256,
            side,
            rate,
        },
    )
}

fn side() -> impl Strategy<Value = Option<&'static str>> {
    prop::option::of(prop::sample::select(vec!["phone", "phone", "phone", "Phone", "tablet"]))
}

proptest! {
    #[test]
    fn claims_mean_what_the_model_says(
        given in given(),
        has_code in prop::bool::weighted(0.9),
        side in side(),
        is_hs256: bool,
        forged in prop::bool::weighted(0.1),
    ) {
        let code = has_code.then_some("code");
        let target = format!("/?pair=code{}", side.map(|side| format!("&side={side}")).unwrap_or_default());
        let join = code.map(|_| join(&target));
        let mut ticket = good(&given.claims(), is_hs256);
        if forged {
            ticket.replace_range(ticket.len() - 2.., "AA");
        }
        let result = check(ticket.as_bytes(), join.as_ref(), &keys(), Duration::from_secs_f64(NOW));
        // A signature ends in these letters once in 4096 or 64 times at most, by its unused bits.
        prop_assume!(!forged || result.is_err());
        prop_assert_eq!(result, given.expected(code, side, !forged));
    }

    #[test]
    fn ticket_with_any_bit_flipped_is_refused(is_hs256: bool, at: prop::sample::Index, bit in 0..8_u32) {
        let mut ticket = good(&json!({"exp": NOW, "pair": "code", "side": "phone", "rate": 5000}), is_hs256).into_bytes();
        prop_assert!(judge_bytes(&ticket, &keys()).is_ok());
        let at = at.index(ticket.len());
        ticket[at] ^= 1 << bit;
        prop_assert!(judge_bytes(&ticket, &keys()).is_err());
    }

    #[test]
    fn bytes_without_a_signature_are_refused(bytes: Vec<u8>, header in "[ -~]{0,40}", claims in "[ -~]{0,40}") {
        prop_assert!(judge_bytes(&bytes, &keys()).is_err());
        let parts = format!("{}.{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()), encode(&bytes));
        prop_assert!(judge(&parts, &keys()).is_err());
    }
}
