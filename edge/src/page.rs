//! What the edge itself says: status lines, and short pages that name what happened and no detail.

/// The reason phrase of a status that the edge gives.
#[must_use]
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        412 => "Precondition Failed",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

/// What happened, for a visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// No app has the host.
    NoApp,
    /// The app has nothing there.
    NoRoute,
    /// The app is stopped.
    Stopped,
    /// The app is being replaced.
    Restarting,
    /// The app could not be reached, or broke off.
    NoAnswer,
    /// The app took too long.
    TooSlow,
    /// The edge does not know what it should serve.
    NotReady,
    /// The request is not one.
    BadRequest(u16),
    /// The method is not for files.
    Method,
}

impl Page {
    /// Its status.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::NoApp | Self::NoRoute => 404,
            Self::Stopped | Self::Restarting | Self::NotReady => 503,
            Self::NoAnswer => 502,
            Self::TooSlow => 504,
            Self::Method => 405,
            Self::BadRequest(status) => status,
        }
    }

    /// Its one sentence.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NoApp => "No app answers this address.",
            Self::NoRoute => "There is nothing at this address.",
            Self::Stopped => "This app is stopped.",
            Self::Restarting => "This app is restarting. Please try again in a moment.",
            Self::NoAnswer => "The app did not answer.",
            Self::TooSlow => "The app took too long to answer.",
            Self::NotReady => "This server is getting ready. Please try again in a moment.",
            Self::Method => "This address can only be read.",
            Self::BadRequest(408) => "The request took too long to arrive.",
            Self::BadRequest(405) => "This method is not supported.",
            Self::BadRequest(431) => "The request's head is too large.",
            Self::BadRequest(505) => "This version of HTTP is not supported.",
            Self::BadRequest(_) => "The request could not be understood.",
        }
    }

    /// Its body and the type of that.
    #[must_use]
    pub fn body(self, html: bool) -> (&'static str, String) {
        let (status, sentence) = (self.status(), self.sentence());
        if !html {
            return ("text/plain; charset=utf-8", format!("{sentence}\n"));
        }
        let title = reason(status);
        let text = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><title>{title}</title><style>body{{font:1.1em/1.5 system-ui,sans-serif;\
             max-width:32em;margin:20vh auto 0;padding:0 1em;color:#333}}small{{color:#666}}</style>\
             <p>{sentence}<p><small>{status} {title}</small></html>\n"
        );
        ("text/html; charset=utf-8", text)
    }
}
