//! Just enough BER to read the PKCS#7 that AWS hands out: nested values, definite or indefinite
//! lengths, and their DER encoding, over which signatures are made.

/// One value: its tag byte and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) tag: u8,
    pub(super) body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    Primitive(Vec<u8>),
    Constructed(Vec<Node>),
}

pub(super) const OCTETS: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const SET: u8 = 0x31;

/// Values may nest this deep; a real signature needs nine levels.
const DEPTH: usize = 24;

/// Reads one value and requires that nothing follows it.
pub(super) fn parse(input: &[u8]) -> Option<Node> {
    let (node, rest) = read(input, DEPTH)?;
    rest.is_empty().then_some(node)
}

fn read(input: &[u8], depth: usize) -> Option<(Node, &[u8])> {
    let (&tag, rest) = input.split_first()?;
    if depth == 0 || tag & 0x1f == 0x1f {
        return None;
    }
    let (&first, rest) = rest.split_first()?;
    if first == 0x80 {
        return read_indefinite(tag, rest, depth);
    }
    let (length, rest) = length_of(first, rest)?;
    let (content, rest) = rest.split_at_checked(length)?;
    if tag & 0x20 == 0 {
        return Some((Node { tag, body: Body::Primitive(content.to_vec()) }, rest));
    }
    let mut children = Vec::new();
    let mut inner = content;
    while !inner.is_empty() {
        let (child, after) = read(inner, depth - 1)?;
        children.push(child);
        inner = after;
    }
    Some((Node { tag, body: Body::Constructed(children) }, rest))
}

fn length_of(first: u8, rest: &[u8]) -> Option<(usize, &[u8])> {
    if first < 0x80 {
        return Some((usize::from(first), rest));
    }
    let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
    if digits.len() > 4 {
        return None;
    }
    let length = digits.iter().fold(0_usize, |sum, digit| sum << 8 | usize::from(*digit));
    Some((length, rest))
}

fn read_indefinite(tag: u8, mut rest: &[u8], depth: usize) -> Option<(Node, &[u8])> {
    let mut children = Vec::new();
    loop {
        if let [0, 0, after @ ..] = rest {
            return Some((Node { tag, body: Body::Constructed(children) }, after));
        }
        let (child, after) = read(rest, depth - 1)?;
        children.push(child);
        rest = after;
    }
}

impl Node {
    /// What a constructed value holds; nothing in a primitive one.
    pub(super) fn children(&self) -> &[Node] {
        match &self.body {
            Body::Constructed(children) => children,
            Body::Primitive(_) => &[],
        }
    }

    /// The bytes of a primitive value, or those of a string that was sent in pieces.
    pub(super) fn bytes(&self) -> Vec<u8> {
        match &self.body {
            Body::Primitive(bytes) => bytes.clone(),
            Body::Constructed(pieces) => pieces.iter().flat_map(Node::bytes).collect(),
        }
    }

    /// The DER encoding.
    pub(super) fn encode(&self) -> Vec<u8> {
        let content = match &self.body {
            Body::Primitive(bytes) => bytes.clone(),
            Body::Constructed(children) => children.iter().flat_map(Node::encode).collect(),
        };
        let mut out = vec![self.tag];
        let length = content.len();
        if length < 0x80 {
            out.push(length as u8);
        } else {
            let digits: Vec<u8> =
                length.to_be_bytes().into_iter().skip_while(|digit| *digit == 0).collect();
            out.push(0x80 | digits.len() as u8);
            out.extend(digits);
        }
        out.extend(content);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_indefinite_length_reads_like_a_definite_one() {
        let definite = [0x30, 0x05, 0x04, 0x03, b'a', b'b', b'c'];
        let pieces = [0x30, 0x80, 0x24, 0x80, 4, 2, b'a', b'b', 4, 1, b'c', 0, 0, 0, 0];
        let left = parse(&definite).expect("definite");
        let right = parse(&pieces).expect("indefinite");
        assert_eq!(left.children()[0].bytes(), right.children()[0].bytes());
        assert_eq!(left.encode(), definite);
        assert_eq!(parse(&definite[..6]), None);
        assert_eq!(parse(&[0x30, 0x80, 0x04]), None);
    }
}
