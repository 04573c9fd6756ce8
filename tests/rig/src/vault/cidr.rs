//! Address ranges, for tokens and roles that are bound to them.

use std::net::IpAddr;

/// Whether any of the ranges holds the address; a bare address is a range of one.
pub(super) fn any_contains(ranges: &[String], address: IpAddr) -> bool {
    ranges.iter().any(|range| contains(range, address))
}

fn contains(range: &str, address: IpAddr) -> bool {
    let (base, length) = match range.split_once('/') {
        Some((base, length)) => (base, length.parse::<u32>().ok()),
        None => (range, None),
    };
    match (base.parse::<IpAddr>(), address) {
        (Ok(IpAddr::V4(base)), IpAddr::V4(address)) => {
            let shift = 32_u32.saturating_sub(length.unwrap_or(32));
            let cut = |ip: u32| ip.checked_shr(shift).unwrap_or(0);
            cut(base.to_bits()) == cut(address.to_bits())
        }
        (Ok(IpAddr::V6(base)), IpAddr::V6(address)) => {
            let shift = 128_u32.saturating_sub(length.unwrap_or(128));
            let cut = |ip: u128| ip.checked_shr(shift).unwrap_or(0);
            cut(base.to_bits()) == cut(address.to_bits())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_its_own_addresses_only() {
        let inside = |range: &str, ip: &str| contains(range, ip.parse().expect("an address"));
        assert!(inside("127.0.0.0/8", "127.9.9.9"));
        assert!(!inside("10.0.0.0/24", "10.0.1.1"));
        assert!(inside("10.0.0.7", "10.0.0.7") && !inside("10.0.0.7", "10.0.0.8"));
        assert!(inside("::1", "::1") && !inside("::1", "127.0.0.1"));
    }
}
