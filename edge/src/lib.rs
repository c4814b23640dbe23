//! The edge: the only process that touches public traffic.
