//! The file of ticket keys, and signatures with known answers.

use super::*;

/// RFC 8037, appendix A.2.
const PUBLIC: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
/// 32 bytes.
const SECRET: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE";

fn fault(text: &str) -> String {
    text.parse::<TicketKeys>().unwrap_err().to_string()
}

/// RFC 8037, appendix A.4. Its payload is no JSON.
#[test]
fn signature_of_rfc_8037_is_good() {
    let keys: TicketKeys = format!("ed25519 {PUBLIC}").parse().unwrap();
    let message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    assert!(keys.have_signed(message, &signature, Algorithm::Ed25519, None));
    assert!(!keys.have_signed(message, &signature, Algorithm::Hs256, None));
    assert!(!keys.have_signed(&message[1..], &signature, Algorithm::Ed25519, None));
    assert!(!keys.have_signed(message, &signature[..63], Algorithm::Ed25519, None));
}

#[test]
fn each_line_is_a_key_unless_blank_or_a_comment() {
    let text = format!("\u{FEFF}# of 2026\r\n\r\nhs256 {SECRET}\r\n\t ed25519\t{PUBLIC}  phones \n  # hs256 x\n");
    let keys: TicketKeys = text.parse().unwrap();
    assert_eq!(keys.count(), 2);
    assert_eq!(keys.0[0].id, None);
    assert_eq!(keys.0[1].id.as_deref(), Some("phones"));
    assert_eq!(keys, format!("hs256 {SECRET}=\ned25519 {PUBLIC} phones").parse().unwrap());
}

#[test]
fn key_may_be_in_either_alphabet_with_or_without_padding() {
    let of = |key: &str| format!("ed25519 {key}").parse::<TicketKeys>();
    assert_eq!(of(PUBLIC), of("11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="));
    // RFC 8410, section 10.1: the line between the two of PEM, and the same key without what is around it.
    let der = of("MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=");
    assert!(der.is_ok());
    assert_eq!(der, of("Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE"));
}

#[test]
fn text_without_a_key_or_with_a_bad_one_is_an_error_that_shows_nothing_of_it() {
    let secret = |key: &str| format!("line 1: {key}");
    assert_eq!(fault(""), "there is no ticket key");
    assert_eq!(fault("# hs256\n\n"), "there is no ticket key");
    assert_eq!(fault(&format!("hs256 {SECRET}\n").repeat(17)), "there are more than 16 ticket keys");
    assert!(format!("hs256 {SECRET}\n").repeat(16).parse::<TicketKeys>().is_ok());
    assert_eq!(
        fault(&format!("# one\n\nhs256 {SECRET}\n{SECRET}")),
        "line 4: an algorithm, a key and at most one name are needed"
    );
    assert_eq!(fault(&format!("hs256 {SECRET} a name")), secret("an algorithm, a key and at most one name are needed"));
    for algorithm in ["HS256", "hs512", "ed448", "none", SECRET] {
        assert_eq!(fault(&format!("{algorithm} {SECRET}")), secret("the algorithm has to be hs256 or ed25519"));
    }
    let short = BASE64URL_NOPAD.encode(&[7; 31]);
    for key in [&*short, "not-base64!", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MD="] {
        assert_eq!(fault(&format!("hs256 {key}")), secret("a secret of at least 32 bytes in Base64 is needed"));
    }
    let no_point = BASE64URL_NOPAD.encode(&{
        let mut bytes = [0; 32];
        bytes[0] = 2;
        bytes
    });
    let weak = BASE64URL_NOPAD.encode(&{
        let mut bytes = [0; 32];
        bytes[0] = 1; // the neutral element
        bytes
    });
    // A private key (RFC 8410, section 10.3), and one of X25519.
    let private = "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC";
    let other = "MCowBQYDK2VuAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
    for key in [&*short, &no_point, &weak, private, other, "not-base64!"] {
        assert_eq!(fault(&format!("ed25519 {key}")), secret("an Ed25519 public key in Base64 is needed"), "{key}");
    }
}

#[test]
fn debug_shows_no_key() {
    let keys: TicketKeys = format!("hs256 {SECRET} name").parse().unwrap();
    assert_eq!(format!("{keys:?} {keys:#?}"), "TicketKeys(..) TicketKeys(..)");
}
