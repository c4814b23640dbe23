//! The apps' networks: which part of the agent's own subnet an app gets, and what of the host stands in its way.
//!
//! Pure: the host's routes are an argument ([`crate::host::routes`] reads them). Deliberately absent: making networks, which is
//! Docker's.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use refloat_model::AppName;
use refloat_model::admission::Denial;

/// Every app has a /26: 60 addresses besides network, gateway and broadcast.
pub const APP_PREFIX: u8 = 26;
const APP_ADDRESSES: u32 = 1 << (32 - APP_PREFIX);
/// A route wider than this is a way to the internet, also the halves that a tunnel sets in place of the default route.
const WIDEST_NETWORK: u8 = 8;
/// The usual subnet, then what is proposed when the configured one is in use: ranges that home routers, clouds and Docker seldom take.
const PROPOSALS: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(10, 201, 0, 0), 16),
    (Ipv4Addr::new(172, 29, 0, 0), 16),
    (Ipv4Addr::new(192, 168, 192, 0), 18),
    (Ipv4Addr::new(10, 91, 0, 0), 16),
];

/// The network that every app gets a /26 of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    /// Its first address.
    pub base: Ipv4Addr,
    /// How many apps fit.
    pub apps: u16,
}

impl Default for Subnet {
    fn default() -> Self {
        Self::of(Ipv4Net::new_assert(PROPOSALS[0].0, PROPOSALS[0].1))
    }
}

/// Something that the host reaches already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoute {
    /// Which addresses.
    pub net: Ipv4Net,
    /// Through which link.
    pub link: String,
}

impl HostRoute {
    fn stands_in_the_way_of(&self, net: Ipv4Net) -> bool {
        self.net.prefix_len() >= WIDEST_NETWORK && (self.net.contains(&net) || net.contains(&self.net))
    }
}

impl Subnet {
    /// The subnet of these bounds.
    #[must_use]
    pub fn of(net: Ipv4Net) -> Self {
        Self { base: net.network(), apps: 1_u16 << APP_PREFIX.saturating_sub(net.prefix_len()).min(15) }
    }

    /// First address of an app's network.
    #[must_use]
    pub fn base_of(&self, app: u16) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base).saturating_add(u32::from(app) * APP_ADDRESSES))
    }

    fn net_of(&self, app: u16) -> Ipv4Net {
        Ipv4Net::new_assert(self.base_of(app), APP_PREFIX)
    }

    /// The lowest /26 that no app has and that the host does not reach already.
    ///
    /// # Errors
    /// Why there is none.
    pub fn free(&self, taken: &[(AppName, u16)], routes: &[HostRoute]) -> Result<u16, Denial> {
        let mut in_the_way = None;
        for app in (0..self.apps).filter(|n| taken.iter().all(|(_, t)| t != n)) {
            match routes.iter().find(|route| route.stands_in_the_way_of(self.net_of(app))) {
                None => return Ok(app),
                Some(route) => in_the_way = Some(route),
            }
        }
        Err(match in_the_way {
            None => Denial::NoSubnet,
            Some(route) => Denial::SubnetInUse {
                subnet: format!("{}/{}", self.base, self.prefix_len()),
                route: route.net.to_string(),
                link: route.link.clone(),
                // Apps keep the networks that they have: another subnet is for a server without apps.
                free: taken.is_empty().then(|| proposal(routes).to_string()),
            },
        })
    }

    /// The route that came up over an app's network after the app was made: addresses of the one hide those of the other.
    #[must_use]
    pub fn hidden_by<'a>(&self, app: u16, routes: &'a [HostRoute]) -> Option<&'a HostRoute> {
        let own = self.net_of(app);
        routes.iter().find(|route| route.net != own && route.stands_in_the_way_of(own))
    }

    fn prefix_len(&self) -> u32 {
        u32::from(APP_PREFIX).saturating_sub(u32::from(self.apps).ilog2())
    }
}

/// A subnet that nothing stands in the way of; the last one when every one is in use.
fn proposal(routes: &[HostRoute]) -> Ipv4Net {
    let [first, rest @ ..] = PROPOSALS.map(|(base, prefix)| Ipv4Net::new_assert(base, prefix));
    let free = |net: &Ipv4Net| !routes.iter().any(|route| route.stands_in_the_way_of(*net));
    let mut last = first;
    for net in std::iter::once(first).chain(rest) {
        if free(&net) {
            return net;
        }
        last = net;
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(nets: &[&str]) -> Vec<HostRoute> {
        nets.iter().map(|net| HostRoute { net: net.parse().unwrap(), link: "wg0".to_owned() }).collect()
    }

    fn usual() -> Subnet {
        Subnet::default()
    }

    fn taken(numbers: &[u16]) -> Vec<(AppName, u16)> {
        numbers.iter().map(|n| (AppName::new(format!("app-{n}")).unwrap(), *n)).collect()
    }

    #[test]
    fn an_app_gets_the_lowest_network_that_no_other_has() {
        assert_eq!(usual().free(&[], &routes(&["0.0.0.0/0", "192.168.1.0/24"])), Ok(0));
        assert_eq!(usual().free(&taken(&[0, 1, 3]), &[]), Ok(2));
        assert_eq!(usual().base_of(2), Ipv4Addr::new(10, 201, 0, 128));
        assert_eq!((usual().apps, usual().base_of(1023)), (1024, Ipv4Addr::new(10, 201, 255, 192)));
    }

    #[test]
    fn a_part_that_the_host_reaches_already_is_left_out() {
        assert_eq!(usual().free(&[], &routes(&["10.201.0.0/24"])), Ok(4), "a wider one");
        assert_eq!(
            usual().free(&[], &routes(&["10.201.0.7/32", "10.201.0.64/26"])),
            Ok(2),
            "a narrower and an equal one"
        );
        assert_eq!(usual().free(&[], &routes(&["0.0.0.0/1", "128.0.0.0/1"])), Ok(0), "a tunnel's way to the internet");
    }

    #[test]
    fn a_subnet_that_is_in_use_as_a_whole_is_refused_with_one_that_is_free() {
        let denial = usual().free(&[], &routes(&["10.0.0.0/8"])).unwrap_err();
        let Denial::SubnetInUse { subnet, route, link, free } = denial else { panic!("{denial:?}") };
        assert_eq!((subnet.as_str(), route.as_str(), link.as_str()), ("10.201.0.0/16", "10.0.0.0/8", "wg0"));
        assert_eq!(free.as_deref(), Some("172.29.0.0/16"));
        let later = usual().free(&taken(&[0]), &routes(&["10.0.0.0/8"]));
        assert!(matches!(later, Err(Denial::SubnetInUse { free: None, .. })), "{later:?}");
        let one = Subnet::of("10.201.0.0/26".parse().unwrap());
        assert_eq!(one.free(&taken(&[0]), &[]), Err(Denial::NoSubnet));
    }

    #[test]
    fn a_route_that_came_up_later_is_seen_and_the_networks_own_is_not() {
        let own_and_other = routes(&["10.201.0.0/26", "10.201.0.0/16"]);
        assert_eq!(usual().hidden_by(0, &own_and_other), Some(&own_and_other[1]));
        assert_eq!(usual().hidden_by(0, &routes(&["10.201.0.0/26", "10.201.0.64/26", "0.0.0.0/0"])), None);
    }
}
