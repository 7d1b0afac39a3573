//! One file from the hub to its blob: continued where it stopped, named only when its hash is right.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    HubError, HubOptions, Progress, Result,
    cache::RepoCache,
    client::{Asked, Bytes, Client, Meta},
};

const PIECE: usize = 1 << 18;
const MAX_WAIT: Duration = Duration::from_secs(30);

/// What a transfer works with.
pub(crate) struct Transfer<'a> {
    pub(crate) client: &'a Client,
    pub(crate) cache: &'a RepoCache,
    pub(crate) options: &'a HubOptions,
    pub(crate) asked: Asked<'a>,
    /// Bytes that are here of other files, so that progress counts all of them.
    pub(crate) elsewhere: u64,
}

/// Tells how far a fetch is.
pub(crate) type Tell<'a> = &'a mut dyn FnMut(Progress<'_>);

impl Transfer<'_> {
    /// Fetches a file's blob and links it into the commit's snapshot. Gives its size.
    pub(crate) fn run(&self, commit: &str, meta: &Meta, tell: Tell<'_>) -> Result<u64> {
        let mut told = false;
        let lock = self.cache.lock(&meta.etag, &mut || {
            if !std::mem::replace(&mut told, true) {
                tell(Progress::Waiting { file: &meta.file });
            }
            self.go_on()
        })?;
        let blob = self.cache.blob(&meta.etag);
        if !is_whole(&blob, meta) {
            self.fetch(meta, &blob, tell)?;
        }
        self.cache.link(commit, &meta.file, &meta.etag)?;
        drop(lock);
        Ok(fs::metadata(&blob).map_err(|error| HubError::read(&blob, error))?.len())
    }

    fn fetch(&self, meta: &Meta, blob: &Path, tell: Tell<'_>) -> Result<()> {
        let path = self.cache.partial(&meta.etag);
        let fail = |error| HubError::write(&path, error);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(fail)?;
        }
        let mut resumed = path.metadata().is_ok_and(|found| found.len() > 0);
        loop {
            let wrong = match self.fill(meta, &path, tell) {
                Ok(()) => match self.wrong(meta, &path, tell)? {
                    None => return fs::rename(&path, blob).map_err(fail),
                    Some(wrong) => wrong,
                },
                Err(wrong @ HubError::WrongSize { .. }) => wrong,
                Err(error) => return Err(error),
            };
            fs::remove_file(&path).map_err(fail)?;
            // What an earlier call left may have been broken: the file gets one chance from its first byte on.
            if !std::mem::take(&mut resumed) {
                return Err(wrong);
            }
            tell(Progress::Retry { why: wrong.to_string(), wait: Duration::ZERO });
        }
    }

    /// Appends to the partial file until it has all bytes.
    fn fill(&self, meta: &Meta, path: &Path, tell: Tell<'_>) -> Result<()> {
        let fail = |error| HubError::write(path, error);
        let mut file =
            File::options().create(true).append(true).read(true).open(path).map_err(fail)?;
        let mut size = meta.size;
        let mut failures = 0;
        loop {
            self.go_on()?;
            let done = file.metadata().map_err(fail)?.len();
            match size {
                Some(size) if done == size => return file.sync_all().map_err(fail),
                Some(expected) if done > expected => {
                    let file = meta.file.clone();
                    return Err(HubError::WrongSize { file, expected, found: done });
                }
                _ => {}
            }
            let asked = Asked { file: Some(&meta.file), ..self.asked };
            let error = match self.client.bytes(asked, done) {
                Ok(Some(bytes)) => {
                    if bytes.start != done {
                        file.set_len(0).map_err(fail)?;
                    }
                    size = size.or(bytes.size);
                    let start = bytes.start;
                    let (arrived, end) = self.copy(meta, &mut file, bytes, size, tell)?;
                    if arrived > 0 {
                        failures = 0;
                    }
                    let message = match end {
                        Some(error) => error.to_string(),
                        // Without any word on the size, the end of the answer is the end of the file.
                        None if size.is_none() => return file.sync_all().map_err(fail),
                        None if size == Some(start + arrived) => continue,
                        None => "the connection was closed".to_owned(),
                    };
                    HubError::BrokeOff {
                        file: meta.file.clone(),
                        done: start + arrived,
                        size,
                        message,
                    }
                }
                // There is no byte after those that are here: only the hash can tell whether that is right.
                Ok(None) if size.is_none() => return file.sync_all().map_err(fail),
                Ok(None) => {
                    file.set_len(0).map_err(fail)?;
                    let message = "the hub says that the file ends before".to_owned();
                    HubError::BrokeOff { file: meta.file.clone(), done, size, message }
                }
                Err(error) => error,
            };
            failures += 1;
            let may_pass = error.may_pass() || matches!(error, HubError::Unreachable { .. });
            if !may_pass || failures > self.options.retries {
                return Err(error);
            }
            pause(self.options, failures, &error, tell)?;
        }
    }

    /// Writes what arrives. Gives how much, and why it ended early.
    fn copy(
        &self,
        meta: &Meta,
        file: &mut File,
        mut bytes: Bytes,
        size: Option<u64>,
        tell: Tell<'_>,
    ) -> Result<(u64, Option<io::Error>)> {
        let mut piece = vec![0; PIECE];
        let mut arrived = 0;
        loop {
            self.go_on()?;
            let n = match bytes.reader.read(&mut piece) {
                Ok(0) => return Ok((arrived, None)),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok((arrived, Some(error))),
            };
            file.write_all(&piece[..n])
                .map_err(|error| HubError::write(&self.cache.partial(&meta.etag), error))?;
            arrived += n as u64;
            let done = bytes.start + arrived;
            if size.is_some_and(|size| done > size) {
                return Ok((arrived, None));
            }
            tell(Progress::Bytes { file: &meta.file, done: self.elsewhere + done });
        }
    }

    /// What is wrong with the bytes of a partial file that has them all.
    fn wrong(&self, meta: &Meta, path: &Path, tell: Tell<'_>) -> Result<Option<HubError>> {
        if !meta.etag.is_hash() {
            tell(Progress::Unverified { file: &meta.file });
            return Ok(None);
        }
        tell(Progress::Checking { file: &meta.file });
        let found = meta.etag.hash_of(path, &|| self.go_on())?.unwrap_or_default();
        Ok((!meta.etag.is(&found)).then(|| HubError::WrongHash {
            file: meta.file.clone(),
            expected: meta.etag.as_str().to_owned(),
            found,
        }))
    }

    fn go_on(&self) -> Result<()> {
        if self.options.stopped() { Err(HubError::Stopped) } else { Ok(()) }
    }
}

/// Whether a blob is there with the size the hub says.
pub(crate) fn is_whole(blob: &Path, meta: &Meta) -> bool {
    fs::metadata(blob)
        .is_ok_and(|found| found.is_file() && meta.size.is_none_or(|size| size == found.len()))
}

/// Asks again while what failed may pass.
pub(crate) fn patiently<T>(
    options: &HubOptions,
    tell: Tell<'_>,
    ask: impl Fn() -> Result<T>,
) -> Result<T> {
    let mut failures = 0;
    loop {
        match ask() {
            Err(error) if error.may_pass() && failures < options.retries => {
                failures += 1;
                pause(options, failures, &error, tell)?;
            }
            other => return other,
        }
    }
}

/// Waits before the next try; each wait is twice the one before.
fn pause(options: &HubOptions, failures: u32, error: &HubError, tell: Tell<'_>) -> Result<()> {
    let wait = options.retry_wait.saturating_mul(1 << (failures - 1).min(10)).min(MAX_WAIT);
    tell(Progress::Retry { why: error.to_string(), wait });
    let end = Instant::now() + wait;
    loop {
        if options.stopped() {
            return Err(HubError::Stopped);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
}
