//! libpmem, found at run time: a guest without it can still answer everything else.
//!
//! Only five functions of its stable interface are used (libpmem(7), libpmem.h).

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::transmute_copy;
use std::path::Path;
use std::ptr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::pattern;
use crate::protocol::{Answer, Code, Fault, params, value};

const LIBRARY: &CStr = c"libpmem.so.1";
/// PMEM_FILE_CREATE of libpmem.h: make the file, of the length given.
const FILE_CREATE: c_int = 1;

type MapFile =
    unsafe extern "C" fn(*const c_char, usize, c_int, libc::mode_t, *mut usize, *mut c_int) -> *mut c_void;
type IsPmem = unsafe extern "C" fn(*const c_void, usize) -> c_int;
type Persist = unsafe extern "C" fn(*const c_void, usize);
type Sync = unsafe extern "C" fn(*const c_void, usize) -> c_int;
type ErrorText = unsafe extern "C" fn() -> *const c_char;

struct Library {
    map_file: MapFile,
    is_pmem: IsPmem,
    persist: Persist,
    sync: Sync,
    unmap: Sync,
    error_text: ErrorText,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Check {
    path: String,
    /// Bytes to map; with `write` the file is made this long if it is not there. 0: the whole file.
    #[serde(default)]
    length: usize,
    #[serde(default)]
    write: bool,
    /// Compare what is there with the pattern, and write nothing.
    #[serde(default)]
    compare: bool,
    #[serde(default)]
    seed: u64,
}

#[derive(Serialize)]
struct Checked {
    mapped_bytes: usize,
    /// What pmem_map_file said of its own mapping, and pmem_is_pmem of the same range.
    map_is_pmem: bool,
    is_pmem: bool,
    /// `pmem_persist` or `pmem_msync` when a pattern was written, else null.
    persisted_by: Option<&'static str>,
    /// Whether the pattern is in the mapping, when it was written or looked for.
    read_back: Option<bool>,
}

/// Whether libpmem can be loaded here.
pub fn is_here() -> bool {
    load().is_ok()
}

/// `pmem_check {path, length, write, compare, seed}`: map a file (or a DAX device) by libpmem and say what libpmem thinks
/// of it. With `write` the pattern goes there and is made durable, with `compare` it is looked for.
pub fn check(given: Map<String, Value>) -> Answer {
    let wanted: Check = params(given)?;
    let library = load()?;
    let path = CString::new(wanted.path.as_str())
        .map_err(|_| Fault::new(Code::BadRequest, "path: it has a zero byte"))?;
    let is_there = Path::new(&wanted.path).exists();
    let (length, flags) = if wanted.write && !is_there { (wanted.length, FILE_CREATE) } else { (0, 0) };
    let (mut mapped, mut map_is_pmem) = (0_usize, 0_i32);
    // SAFETY: the signature is libpmem.h's; the path is a C string and both out-pointers outlive the call.
    let place = unsafe {
        (library.map_file)(path.as_ptr(), length, flags, 0o600, &raw mut mapped, &raw mut map_is_pmem)
    };
    if place.is_null() {
        return Err(Fault::new(
            Code::Failed,
            format!("pmem_map_file {}: {}", wanted.path, library.last_error()),
        ));
    }
    let used = if wanted.length == 0 { mapped } else { wanted.length.min(mapped) };
    // SAFETY: `place` is a mapping of `mapped` bytes and `used` is not more.
    let is_pmem = unsafe { (library.is_pmem)(place, used) } == 1;
    let mut answer = Checked {
        mapped_bytes: mapped,
        map_is_pmem: map_is_pmem == 1,
        is_pmem,
        persisted_by: None,
        read_back: None,
    };
    if wanted.write || wanted.compare {
        // SAFETY: libpmem mapped the file shared and writable; only this thread knows the mapping, and the slice is
        // gone before it is unmapped.
        let bytes = unsafe { std::slice::from_raw_parts_mut(place.cast::<u8>(), used) };
        if wanted.write {
            pattern::fill(wanted.seed, 0, bytes);
            answer.persisted_by = Some(library.make_durable(bytes, is_pmem)?);
        }
        let mut expected = vec![0; used];
        pattern::fill(wanted.seed, 0, &mut expected);
        answer.read_back = Some(*bytes == *expected);
    }
    // SAFETY: the whole mapping that pmem_map_file gave, once.
    if unsafe { (library.unmap)(place, mapped) } != 0 {
        return Err(Fault::new(Code::Failed, format!("pmem_unmap: {}", library.last_error())));
    }
    value(answer)
}

impl Library {
    /// Flush a mapped range by the way that fits it, and name the way.
    fn make_durable(&self, bytes: &[u8], is_pmem: bool) -> Result<&'static str, Fault> {
        let place = bytes.as_ptr().cast();
        if is_pmem {
            // SAFETY: a range inside a live mapping.
            unsafe { (self.persist)(place, bytes.len()) };
            return Ok("pmem_persist");
        }
        // SAFETY: a range inside a live mapping.
        match unsafe { (self.sync)(place, bytes.len()) } {
            0 => Ok("pmem_msync"),
            _ => Err(Fault::new(Code::Failed, format!("pmem_msync: {}", self.last_error()))),
        }
    }

    fn last_error(&self) -> String {
        // SAFETY: pmem_errormsg gives a C string of the calling thread that stays until its next libpmem call.
        let text = unsafe { CStr::from_ptr((self.error_text)()) };
        text.to_string_lossy().into_owned()
    }
}

/// Load libpmem. It is never unloaded: its constructors leave threads' state behind.
fn load() -> Result<Library, Fault> {
    // SAFETY: a C string; running the constructors of a system library is what dlopen is for.
    let handle = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW) };
    if handle.is_null() {
        return Err(Fault::new(
            Code::NoLibpmem,
            "libpmem.so.1 is not in this guest: install libpmem (Debian: libpmem1)",
        ));
    }
    // SAFETY: the types are the signatures in libpmem.h of the functions named.
    unsafe {
        Ok(Library {
            map_file: symbol(handle, c"pmem_map_file")?,
            is_pmem: symbol(handle, c"pmem_is_pmem")?,
            persist: symbol(handle, c"pmem_persist")?,
            sync: symbol(handle, c"pmem_msync")?,
            unmap: symbol(handle, c"pmem_unmap")?,
            error_text: symbol(handle, c"pmem_errormsg")?,
        })
    }
}

/// A function of a loaded library.
///
/// # Safety
///
/// `handle` is from dlopen, and `F` is a function pointer type with the true signature of `name`.
unsafe fn symbol<F: Copy>(handle: *mut c_void, name: &CStr) -> Result<F, Fault> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: the caller vouches for the handle.
    let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
    if ptr::eq(found, ptr::null()) {
        return Err(Fault::new(Code::NoLibpmem, format!("libpmem.so.1 has no {}", name.to_string_lossy())));
    }
    // SAFETY: not null, and of a function pointer's size; the caller vouches for the type.
    Ok(unsafe { transmute_copy::<*mut c_void, F>(&found) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_missing_library_is_an_error_of_its_own() {
        let request = json!({"path": "/nowhere/at/all"});
        let fault = check(request.as_object().expect("an object").clone()).expect_err("no such file");
        let expected = if is_here() { Code::Failed } else { Code::NoLibpmem };
        assert_eq!(fault.code, expected, "{}", fault.message);
    }

    #[test]
    fn an_ordinary_file_is_written_but_is_not_pmem() {
        if !is_here() {
            return;
        }
        let path = std::env::temp_dir().join(format!("nvlane-probe-pmem-{}", std::process::id()));
        let request = json!({"path": path, "length": 65536, "write": true, "seed": 9});
        let ask = |request: Value| check(request.as_object().expect("an object").clone());
        let answer = ask(request).expect("a mapping");
        let found = |seed: u64| {
            let answer = ask(json!({"path": path, "compare": true, "seed": seed})).expect("a mapping");
            (answer["read_back"].clone(), answer["persisted_by"].clone())
        };
        let (same, other) = (found(9), found(10));
        let bytes = std::fs::read(&path).expect("the file");
        std::fs::remove_file(&path).expect("to remove it");
        assert_eq!(answer["read_back"], true);
        assert_eq!(answer["is_pmem"], false);
        assert_eq!(same, (json!(true), Value::Null));
        assert_eq!(other, (json!(false), Value::Null), "another pattern, and nothing was written");
        let mut expected = vec![0; 65536];
        pattern::fill(9, 0, &mut expected);
        assert!(bytes == expected, "the file holds the pattern");
    }
}
