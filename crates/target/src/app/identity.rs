//! Who the process runs as.

use nix::unistd::{Gid, Group, Uid, User, initgroups, setgid, setuid};

/// A user to become.
#[derive(Clone, Debug)]
pub struct Identity {
    name: std::ffi::CString,
    uid: Uid,
    gid: Gid,
}

impl Identity {
    pub fn uid(&self) -> u32 {
        self.uid.as_raw()
    }

    /// Looks a user up, by name or number. Do it early: afterwards the user database may be out of reach.
    pub fn find(name: &str) -> Result<Identity, String> {
        let found = match name.parse() {
            Ok(number) => User::from_uid(Uid::from_raw(number)),
            Err(_) => User::from_name(name),
        };
        let user = found.map_err(|error| format!("--user {name}: {error}"))?;
        let user = user.ok_or_else(|| format!("--user {name}: there is no such user"))?;
        let c_name =
            std::ffi::CString::new(user.name).map_err(|_| format!("--user {name}: a NUL in the name"))?;
        Ok(Identity { name: c_name, uid: user.uid, gid: user.gid })
    }

    /// Becomes that user, with its groups, in all threads and for good.
    pub fn assume(&self) -> Result<(), String> {
        let failed = |what: &str, error: nix::Error| {
            format!(
                "--user {}: {what}: {error}; only root can become another user",
                self.name.to_string_lossy()
            )
        };
        initgroups(&self.name, self.gid).map_err(|error| failed("initgroups", error))?;
        setgid(self.gid).map_err(|error| failed("setgid", error))?;
        setuid(self.uid).map_err(|error| failed("setuid", error))?;
        // If this worked, root would only be hidden.
        if !self.uid.is_root() && setuid(Uid::from_raw(0)).is_ok() {
            return Err("privileges are not gone after setuid".into());
        }
        Ok(())
    }
}

/// The number of a group, by name or number.
pub fn group(name: &str) -> Result<u32, String> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let found = Group::from_name(name).map_err(|error| format!("--socket-group {name}: {error}"))?;
    found
        .map(|group| group.gid.as_raw())
        .ok_or_else(|| format!("--socket-group {name}: there is no such group"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(Identity::find("root").unwrap().uid(), 0);
        assert_eq!(Identity::find("0").unwrap().uid(), 0);
        assert!(Identity::find("nobody of that name").unwrap_err().contains("no such user"));
        assert_eq!(group("root"), Ok(0));
        assert_eq!(group("123"), Ok(123));
        assert!(group("no group").is_err());
    }
}
