//! Numbers and texts that system headers, Python's `stat` and `os` and Ruby's XML parsers give to names.

/// The value of a well-known text.
pub(super) fn text(path: &str) -> Option<&'static str> {
    match path {
        "os.sep" | "os.path.sep" | "posixpath.sep" => Some("/"),
        "os.linesep" => Some("\n"),
        "os.curdir" => Some("."),
        "os.pardir" => Some(".."),
        "string.ascii_letters" => Some("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        "string.ascii_lowercase" => Some("abcdefghijklmnopqrstuvwxyz"),
        "string.digits" => Some("0123456789"),
        _ => None,
    }
}

/// The value of a well-known constant.
pub(super) fn number(name: &str) -> Option<i64> {
    if !name.starts_with("S_I") {
        return parser_option(name);
    }
    Some(match name {
        "S_ISUID" => 0o4000,
        "S_ISGID" => 0o2000,
        "S_IRWXU" => 0o700,
        "S_IRUSR" | "S_IREAD" => 0o400,
        "S_IWUSR" | "S_IWRITE" => 0o200,
        "S_IXUSR" | "S_IEXEC" => 0o100,
        "S_IRWXG" => 0o070,
        "S_IRGRP" => 0o040,
        "S_IWGRP" => 0o020,
        "S_IXGRP" => 0o010,
        "S_IRWXO" => 0o007,
        "S_IROTH" => 0o004,
        "S_IWOTH" => 0o002,
        "S_IXOTH" => 0o001,
        _ => return None,
    })
}

/// Options of Ruby's XML parsers.
fn parser_option(name: &str) -> Option<i64> {
    Some(match name {
        "RECOVER" => 1,
        "NOENT" => 2,
        "DTDLOAD" => 4,
        "DTDATTR" => 8,
        "DTDVALID" => 16,
        "NONET" => 2048,
        "DEFAULT_XML" => 1 | 2048 | (1 << 22),
        _ => return None,
    })
}
