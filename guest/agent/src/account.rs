//! Users and groups, read from `/etc/passwd` and `/etc/group`: a static program cannot load the
//! C library's name services.

use std::fs;
use std::io;

use crate::sys;

/// A user to run programs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) home: String,
    user: libc::uid_t,
    group: libc::gid_t,
    groups: Vec<libc::gid_t>,
}

impl Account {
    /// The user of this name or number. A number needs no entry in `/etc/passwd`.
    pub(crate) fn find(user: &str) -> Option<Self> {
        let passwd = fs::read("/etc/passwd").unwrap_or_default();
        let groups = fs::read("/etc/group").unwrap_or_default();
        Self::find_in(user, &String::from_utf8_lossy(&passwd), &String::from_utf8_lossy(&groups))
    }

    fn find_in(user: &str, passwd: &str, groups: &str) -> Option<Self> {
        let number = user.parse::<libc::uid_t>().ok();
        let entry = passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, id, group, _, home, ..] = fields[..] else { return None };
            let (id, group) = (id.parse().ok()?, group.parse().ok()?);
            (name == user || number == Some(id)).then_some((name, id, group, home))
        });
        let (name, id, group, home) = match (entry, number) {
            (Some(entry), _) => entry,
            (None, Some(number)) => (user, number, number, "/"),
            (None, None) => return None,
        };
        let groups = groups.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [_, _, id, members] = fields[..] else { return None };
            members.split(',').any(|member| member == name).then(|| id.parse().ok())?
        });
        Some(Self {
            name: name.to_owned(),
            home: home.to_owned(),
            user: id,
            group,
            groups: std::iter::once(group).chain(groups).collect(),
        })
    }

    /// Turns this process into the user's. Makes system calls only: it runs between fork and exec.
    pub(crate) fn become_it(&self) -> io::Result<()> {
        // The raw calls change this process's one thread; the C library's would signal others.
        // SAFETY: `groups` is as many group numbers as said, and outlives the call.
        let outcome =
            unsafe { libc::syscall(libc::SYS_setgroups, self.groups.len(), self.groups.as_ptr()) };
        check(outcome)?;
        // SAFETY: takes an integer.
        check(unsafe { libc::syscall(libc::SYS_setgid, self.group) })?;
        // SAFETY: takes an integer.
        check(unsafe { libc::syscall(libc::SYS_setuid, self.user) })
    }
}

fn check(result: libc::c_long) -> io::Result<()> {
    sys::check(libc::c_int::try_from(result).unwrap_or(-1)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\nbroken\n\
        www:x:33:33:www:/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nwww:x:33:\ndisk:x:6:other,www\nbroken\ntape:x:26:wwwx\n";

    #[test]
    fn a_name_and_its_number_are_the_same_user() {
        let www = Account::find_in("www", PASSWD, GROUP).unwrap();
        assert_eq!((www.user, www.group, www.home.as_str()), (33, 33, "/var/www"));
        assert_eq!(www.groups, [33, 6]);
        assert_eq!(Account::find_in("33", PASSWD, GROUP), Some(www));
    }

    #[test]
    fn a_number_needs_no_entry_but_a_name_does() {
        let nobody = Account::find_in("4711", PASSWD, GROUP).unwrap();
        assert_eq!((nobody.user, nobody.group, nobody.groups), (4711, 4711, vec![4711]));
        assert_eq!(Account::find_in("ghost", PASSWD, GROUP), None);
        assert_eq!(Account::find_in("-1", PASSWD, GROUP), None);
    }
}
