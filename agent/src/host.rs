//! What the agent must know of its host: the MTU of its links, what they reach, its own address, and its name.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;

use ipnet::Ipv4Net;

use crate::network::HostRoute;

/// MTU where none can be found: Ethernet's.
const DEFAULT_MTU: u16 = 1_500;

/// MTU in bytes of the link that the default route leaves by. Docker's own 1500 stalls on narrower links.
#[must_use]
pub fn mtu() -> u16 {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let link = default_link(&routes);
    let read = |link: &str| fs::read_to_string(format!("/sys/class/net/{link}/mtu")).ok()?.trim().parse().ok();
    link.and_then(read).unwrap_or(DEFAULT_MTU)
}

/// The link of the default route in the kernel's route table, as `/proc/net/route` shows it.
fn default_link(routes: &str) -> Option<&str> {
    routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (link, destination) = (fields.next()?, fields.next()?);
        // A link's name becomes part of a path.
        (destination == "00000000" && !link.contains('/')).then_some(link)
    })
}

/// Networks that the kernel's main route table reaches, the default route not counted. Tables that rules choose, as some
/// tunnels set them up, are not seen.
#[must_use]
pub fn routes() -> Vec<HostRoute> {
    let table = fs::read_to_string("/proc/net/route").unwrap_or_default();
    table.lines().skip(1).filter_map(host_route).collect()
}

/// One line of `/proc/net/route`: link, destination, gateway, flags, three counters, mask. Addresses are hexadecimal in the
/// byte order of the machine.
fn host_route(line: &str) -> Option<HostRoute> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [link, destination, _, _, _, _, _, mask, ..] = fields[..] else { return None };
    let address = |text| u32::from_str_radix(text, 16).ok().map(|n| Ipv4Addr::from(n.to_ne_bytes()));
    let net = Ipv4Net::with_netmask(address(destination)?, address(mask)?).ok()?;
    (net.prefix_len() > 0).then(|| HostRoute { net, link: link.to_owned() })
}

/// The address that this host has towards the internet; loopback when it has none.
#[must_use]
pub fn address() -> IpAddr {
    // TEST-NET-1, and what documentation has for IPv6: on a server without IPv4 the second one has a route.
    let outside: [IpAddr; 2] =
        [Ipv4Addr::new(192, 0, 2, 1).into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()];
    let own = outside.into_iter().find_map(|outside| address_towards(outside).ok());
    own.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Nothing is sent: connecting a datagram socket only picks the route.
fn address_towards(outside: IpAddr) -> std::io::Result<IpAddr> {
    let any: IpAddr = if outside.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((outside, 9))?;
    Ok(socket.local_addr()?.ip())
}

/// Memory of the host in bytes; 1 GiB when the kernel does not say.
///
/// A server that is a container itself shows the memory of the machine below in `/proc/meminfo`; what it may use is the
/// limit of the control group that it sees as the root. `cgroup` is where groups are mounted.
#[must_use]
pub fn memory_bytes(cgroup: &Path) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
    let whole = kib.map_or(1 << 30, |kib| kib.saturating_mul(1_024));
    root_limit_bytes(cgroup).map_or(whole, |limit| limit.min(whole))
}

/// The memory limit of the root group. On a machine of its own there is none: version 2 has no such file there, version 1
/// a number beyond any memory.
fn root_limit_bytes(cgroup: &Path) -> Option<u64> {
    let files = ["memory.max", "memory/memory.limit_in_bytes"];
    files.iter().find_map(|file| fs::read_to_string(cgroup.join(file)).ok()?.trim().parse().ok())
}

/// Processor cores that this process may use.
#[must_use]
pub fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

/// The host's own name.
#[must_use]
pub fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_link_is_the_one_with_destination_zero() {
        let table = "Iface\tDestination\tGateway\n\
                     docker0\t000011AC\t00000000\n\
                     eth0\t00000000\t0100A8C0\n";
        assert_eq!(default_link(table), Some("eth0"));
        assert_eq!(default_link("Iface\tDestination\n"), None);
        assert_eq!(default_link("x\n../../x 00000000 0\n"), None);
    }

    #[test]
    fn the_own_address_is_one_of_this_host() {
        let loopback = address_towards(Ipv6Addr::LOCALHOST.into());
        assert!(loopback.is_err() || loopback.is_ok_and(|ip| ip == IpAddr::V6(Ipv6Addr::LOCALHOST)));
        assert_eq!(address_towards(Ipv4Addr::LOCALHOST.into()).unwrap(), Ipv4Addr::LOCALHOST);
        assert!(UdpSocket::bind((address(), 0)).is_ok());
    }

    #[test]
    fn a_route_has_a_network_and_a_link() {
        let hex = |a: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(a));
        let line = |to, mask| format!("wg0\t{}\t00000000\t0001\t0\t0\t0\t{}\t0\t0\t0", hex(to), hex(mask));
        let route = host_route(&line([10, 201, 0, 0], [255, 255, 0, 0])).unwrap();
        assert_eq!((route.net.to_string().as_str(), route.link.as_str()), ("10.201.0.0/16", "wg0"));
        assert_eq!(host_route(&line([0, 0, 0, 0], [0, 0, 0, 0])), None, "the default route");
        assert_eq!(host_route(&line([10, 0, 0, 0], [255, 0, 255, 0])), None, "no mask");
        assert_eq!(host_route("wg0 0000000A"), None);
        assert!(!routes().iter().any(|route| route.net.prefix_len() == 0), "the kernel's own");
    }

    #[test]
    fn a_server_that_is_a_container_has_the_memory_of_its_root_group() {
        let root = tempfile::tempdir().unwrap();
        let whole = memory_bytes(root.path());
        assert!(whole > 64 << 20, "{whole}");
        fs::write(root.path().join("memory.max"), "max\n").unwrap();
        assert_eq!(memory_bytes(root.path()), whole);
        fs::write(root.path().join("memory.max"), "33554432\n").unwrap();
        assert_eq!(memory_bytes(root.path()), 32 << 20, "version 2");

        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("memory")).unwrap();
        let limit = root.path().join("memory/memory.limit_in_bytes");
        fs::write(&limit, "9223372036854771712\n").unwrap();
        assert_eq!(memory_bytes(root.path()), whole, "version 1 writes no limit as a number");
        fs::write(&limit, "33554432\n").unwrap();
        assert_eq!(memory_bytes(root.path()), 32 << 20, "version 1");
    }
}
