//! Networks: what `source` matches and who is a trusted proxy.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address range, as in `10.0.0.0/8`; a bare address is a range of one.
///
/// IPv4 addresses inside IPv6 (`::ffff:10.0.0.1`, what a dual-stack socket reports) count as IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    network: IpAddr,
    /// 0-32 or 0-128.
    prefix: u8,
}

/// Why a text is no range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CidrError {
    /// Not an IP address before the slash.
    Address,
    /// Not a number of 0-32 (IPv4) or 0-128 (IPv6) after it.
    Prefix,
    /// The address has bits beyond the prefix; holds the range that was probably meant.
    HostBits(Cidr),
}

impl Cidr {
    /// The range that holds `address` and every other with the same first `prefix` bits.
    ///
    /// # Errors
    /// [`CidrError::Prefix`] and [`CidrError::HostBits`].
    pub fn new(address: IpAddr, prefix: u8) -> Result<Cidr, CidrError> {
        let (address, prefix) = match (address, address.to_canonical()) {
            (IpAddr::V6(_), v4 @ IpAddr::V4(_)) if (96..=128).contains(&prefix) => {
                (v4, prefix - 96)
            }
            _ => (address, prefix),
        };
        if prefix > width(address) {
            return Err(CidrError::Prefix);
        }
        let range = Cidr {
            network: masked(address, prefix),
            prefix,
        };
        if range.network == address {
            Ok(range)
        } else {
            Err(CidrError::HostBits(range))
        }
    }

    /// Whether `address` lies in this range.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        width(address) == width(self.network) && masked(address, self.prefix) == self.network
    }

    /// Whether every address of `other` lies in this range.
    pub fn contains_range(&self, other: &Cidr) -> bool {
        self.prefix <= other.prefix && self.contains(other.network)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX
                .checked_shl(32_u32.saturating_sub(prefix.into()))
                .unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX
                .checked_shl(128_u32.saturating_sub(prefix.into()))
                .unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| CidrError::Address)?;
        let prefix = match prefix {
            Some(digits)
                if digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                digits.parse().map_err(|_| CidrError::Prefix)?
            }
            Some(_) => return Err(CidrError::Prefix),
            None => width(address),
        };
        Cidr::new(address, prefix)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix == width(self.network) {
            self.network.fmt(f)
        } else {
            write!(f, "{}/{}", self.network, self.prefix)
        }
    }
}

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CidrError::Address => {
                f.write_str("expected an IP address or a range such as 10.0.0.0/8")
            }
            CidrError::Prefix => {
                f.write_str("the number after the slash goes to 32 for IPv4, to 128 for IPv6")
            }
            CidrError::HostBits(range) => {
                write!(
                    f,
                    "the address has bits beyond its prefix; did you mean {range}?"
                )
            }
        }
    }
}

impl std::error::Error for CidrError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(range: &str, address: &str, expected: bool) {
        let range: Cidr = range.parse().unwrap();
        assert_eq!(
            range.contains(address.parse().unwrap()),
            expected,
            "{range} {address}"
        );
    }

    fn check_error(range: &str, expected: &str) {
        assert_eq!(
            range.parse::<Cidr>().unwrap_err().to_string(),
            expected,
            "{range}"
        );
    }

    #[test]
    fn ranges() {
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("10.0.0.0/8", "::ffff:10.0.0.1", true);
        check("::ffff:10.0.0.0/104", "10.0.0.1", true);
        check("0.0.0.0/0", "1.2.3.4", true);
        check("0.0.0.0/0", "::1", false);
        check("::/0", "2001:db8::1", true);
        check("::/0", "1.2.3.4", false);
        check("192.0.2.7", "192.0.2.7", true);
        check("192.0.2.7", "192.0.2.8", false);
        check("2001:db8::/32", "2001:db8:1::1", true);
        check("2001:db8::/32", "2001:db9::1", false);
    }

    #[test]
    fn errors() {
        check_error(
            "10.0.0.1/8",
            "the address has bits beyond its prefix; did you mean 10.0.0.0/8?",
        );
        let address = "expected an IP address or a range such as 10.0.0.0/8";
        check_error("ten/8", address);
        check_error("", address);
        let prefix = "the number after the slash goes to 32 for IPv4, to 128 for IPv6";
        check_error("10.0.0.0/33", prefix);
        check_error("10.0.0.0/+8", prefix);
        check_error("10.0.0.0/", prefix);
        check_error("::/999", prefix);
    }
}
