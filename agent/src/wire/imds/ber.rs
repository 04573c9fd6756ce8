//! The content of a PKCS#7 signed message, tolerantly read: AWS writes BER of indefinite length
//! with the content in pieces, a model may write DER. Only the content is looked for; what else
//! is in the message, the signature first of all, is Vault's to judge.

/// More nesting than any PKCS#7 has on the way to its content.
const DEPTH: u32 = 8;

const SEQUENCE: u8 = 0x30;
const EXPLICIT_0: u8 = 0xa0;
const OCTETS: u8 = 0x04;
const OCTETS_IN_PIECES: u8 = 0x24;

/// One element: its tag and what is inside.
struct Element<'a> {
    tag: u8,
    inside: &'a [u8],
}

/// The signed content: `ContentInfo.content.encapContentInfo.eContent` of RFC 5652.
pub(super) fn signed_content(message: &[u8]) -> Option<Vec<u8>> {
    let info = child(message, SEQUENCE)?;
    let signed_data = child(child(info, EXPLICIT_0)?, SEQUENCE)?;
    let encapsulated = child(signed_data, SEQUENCE)?;
    let (content, _) = element(child(encapsulated, EXPLICIT_0)?, DEPTH)?;
    octets(&content, DEPTH)
}

/// The first element with this tag.
fn child(mut bytes: &[u8], tag: u8) -> Option<&[u8]> {
    while !bytes.is_empty() {
        let (element, rest) = element(bytes, DEPTH)?;
        if element.tag == tag {
            return Some(element.inside);
        }
        bytes = rest;
    }
    None
}

fn octets(element: &Element<'_>, depth: u32) -> Option<Vec<u8>> {
    match element.tag {
        OCTETS => Some(element.inside.to_vec()),
        OCTETS_IN_PIECES => {
            let mut whole = Vec::new();
            let mut bytes = element.inside;
            while !bytes.is_empty() {
                let (piece, rest) = self::element(bytes, depth.checked_sub(1)?)?;
                whole.extend(octets(&piece, depth - 1)?);
                bytes = rest;
            }
            Some(whole)
        }
        _ => None,
    }
}

/// The first element of the bytes, and what follows it.
fn element(bytes: &[u8], depth: u32) -> Option<(Element<'_>, &[u8])> {
    let (&tag, bytes) = bytes.split_first()?;
    let (&length, bytes) = bytes.split_first()?;
    if length == 0x80 {
        let end = end_of_indefinite(bytes, depth)?;
        let inside = bytes.get(..end)?;
        return Some((Element { tag, inside }, bytes.get(end + 2..)?));
    }
    let (length, bytes) = match length {
        0..0x80 => (usize::from(length), bytes),
        _ => {
            let (digits, bytes) = bytes.split_at_checked(usize::from(length & 0x7f))?;
            let value = digits.iter().try_fold(0usize, |value, digit| {
                value.checked_mul(256)?.checked_add(usize::from(*digit))
            })?;
            (value, bytes)
        }
    };
    let (inside, rest) = bytes.split_at_checked(length)?;
    Some((Element { tag, inside }, rest))
}

/// Where the two zero bytes are that end an element of indefinite length.
fn end_of_indefinite(bytes: &[u8], depth: u32) -> Option<usize> {
    let deeper = depth.checked_sub(1)?;
    let mut rest = bytes;
    while !rest.starts_with(&[0, 0]) {
        (_, rest) = element(rest, deeper)?;
    }
    Some(bytes.len() - rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `SEQUENCE { OID, [0] { SEQUENCE { 1, SET {}, SEQUENCE { OID, [0] { content } } } } }`
    fn message(content: &[u8], wrap: fn(u8, &[u8]) -> Vec<u8>) -> Vec<u8> {
        let oid = [0x06, 0x01, 0x2a];
        let encapsulated = [oid.to_vec(), wrap(EXPLICIT_0, content)].concat();
        let version_and_digests = [0x02, 0x01, 0x01, 0x31, 0x00];
        let data = [version_and_digests.to_vec(), wrap(SEQUENCE, &encapsulated)].concat();
        let info = [oid.to_vec(), wrap(EXPLICIT_0, &wrap(SEQUENCE, &data))].concat();
        wrap(SEQUENCE, &info)
    }

    fn definite(tag: u8, inside: &[u8]) -> Vec<u8> {
        let length = u8::try_from(inside.len()).expect("short");
        [&[tag, 0x81, length], inside].concat()
    }

    fn indefinite(tag: u8, inside: &[u8]) -> Vec<u8> {
        [&[tag, 0x80], inside, &[0, 0]].concat()
    }

    #[test]
    fn finds_the_content_in_der_in_ber_and_in_pieces() {
        let pieces = indefinite(OCTETS_IN_PIECES, b"\x04\x02he\x04\x03llo");
        for wrap in [definite, indefinite] {
            let whole = message(b"\x04\x05hello", wrap);
            assert_eq!(signed_content(&whole).as_deref(), Some(&b"hello"[..]));
            let pieced = message(&pieces, wrap);
            assert_eq!(signed_content(&pieced).as_deref(), Some(&b"hello"[..]));
        }
    }

    #[test]
    fn ends_at_every_torn_or_hostile_message() {
        for wrap in [definite, indefinite] {
            let whole = message(b"\x04\x05hello", wrap);
            for length in 0..whole.len() {
                // A lost end-of-contents mark may leave the content readable, never another one.
                let found = signed_content(&whole[..length]);
                assert!(found.is_none_or(|found| found == b"hello"));
            }
        }
        assert_eq!(signed_content(&[0x30; 4096]), None);
        assert_eq!(signed_content(&[0x30, 0x80].repeat(4096)), None);
        assert_eq!(signed_content(&[0x30, 0x8f, 0xff, 0xff]), None);
    }
}
