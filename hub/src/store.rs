//! Where a hub's devices are kept: nowhere, or in an embedded database that survives being killed.

mod disk;

use crate::{configurations::Assignment, error::Error, identity::Identity, sas::Keys, twin::Twin};
use disk::Disk;
pub(crate) use disk::Durable;
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    fmt::Display,
    fs,
    path::{Path, PathBuf},
};

/// A table's name. It has rows of JSON, each with a key.
pub(crate) type Table = &'static str;

const DEVICES: Table = "devices";
const HUB: Table = "hub";
/// Automatic device configurations, by id.
pub(crate) const CONFIGURATIONS: Table = "configurations";
/// Jobs, by id.
pub(crate) const JOBS: Table = "jobs";
/// What jobs did with each device.
pub(crate) const JOB_DEVICES: Table = "job_devices";

/// All that is kept of a device.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Device {
    pub(crate) identity: Identity,
    pub(crate) twin: Twin,
    /// The topic filters of a session that outlives its connection (CleanSession=0), with their QoS.
    pub(crate) subscriptions: Option<Subscriptions>,
    /// What configurations made of it.
    #[serde(default)]
    pub(crate) assignment: Assignment,
}

/// Topic filters and the QoS granted for each.
pub(crate) type Subscriptions = BTreeMap<String, u8>;

/// The keys of each shared access policy.
pub(crate) type Policies = BTreeMap<String, Keys>;

/// Keeps devices. A change is durable when its call returns, until [`Store::write_behind`].
pub(crate) enum Store {
    /// Keeps nothing.
    Memory,
    /// An open database.
    Disk(Disk),
}

impl Store {
    /// Opens, or makes, the database in a directory; makes the directory too.
    pub(crate) fn open(directory: &Path) -> Result<Self, Error> {
        let file = directory.join("hub.redb");
        let state = |path: &Path, reason: String| Error::State {
            path: path.into(),
            reason,
        };
        create_private(directory)
            .map_err(|error| state(directory, format!("cannot be made: {error}")))?;
        let database = open_private(&file)
            .map_err(|error| state(&file, format!("cannot be opened: {error}")))
            .and_then(|handle| {
                disk::open(handle).map_err(|error| match error {
                    redb::DatabaseError::DatabaseAlreadyOpen => state(
                        directory,
                        "is in use by another hub: stop it, or choose another --state".into(),
                    ),
                    error => state(
                        &file,
                        format!(
                            "cannot be opened: {error}; move it away to begin with an empty hub"
                        ),
                    ),
                })
            })?;
        Ok(Self::Disk(Disk::new(database, file)))
    }

    /// All that is kept. The policies are missing in a new hub.
    pub(crate) fn load(&self) -> Result<(Option<Policies>, Vec<Device>), Error> {
        let Self::Disk(disk) = self else {
            return Ok((None, Vec::new()));
        };
        let read = |database: &redb::Database| -> Result<_, redb::Error> {
            // Makes the tables of a new database, so that reading finds them.
            let transaction = database.begin_write()?;
            transaction.open_table(definition(DEVICES))?;
            transaction.open_table(definition(HUB))?;
            transaction.commit()?;
            let transaction = database.begin_read()?;
            let policies = transaction
                .open_table(definition(HUB))?
                .get("policies")?
                .map(|value| value.value().to_vec());
            let mut devices = Vec::new();
            for entry in transaction.open_table(definition(DEVICES))?.iter()? {
                devices.push(entry?.1.value().to_vec());
            }
            Ok((policies, devices))
        };
        let (policies, devices) = disk.read(read).map_err(|error| unreadable(&error))?;
        let policies = policies
            .map(|bytes| serde_json::from_slice(&bytes))
            .transpose()
            .map_err(|error| unreadable(&error))?;
        let devices = devices
            .iter()
            .map(|bytes| serde_json::from_slice(bytes))
            .collect::<Result<_, _>>()
            .map_err(|error| unreadable(&error))?;
        Ok((policies, devices))
    }

    /// Keeps the policies' keys.
    pub(crate) fn put_policies(&self, policies: &Policies) -> Result<(), String> {
        self.put(HUB, "policies", policies)
    }

    /// Keeps a device.
    pub(crate) fn put_device(&self, device: &Device) -> Result<(), String> {
        self.put(DEVICES, &device.identity.device_id, device)
    }

    /// Keeps devices, all or none.
    pub(crate) fn put_devices<'d>(
        &self,
        devices: impl Iterator<Item = &'d Device>,
    ) -> Result<(), String> {
        let rows = devices.map(|device| (device.identity.device_id.as_str(), device));
        self.put_all(DEVICES, rows)
    }

    /// Forgets a device.
    pub(crate) fn remove_device(&self, id: &str) -> Result<(), String> {
        self.remove(DEVICES, id)
    }

    /// All rows of a table, by key.
    pub(crate) fn rows<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<T>, Error> {
        let Self::Disk(disk) = self else {
            return Ok(Vec::new());
        };
        let read = |database: &redb::Database| -> Result<_, redb::Error> {
            // Makes the table of a new database, so that reading finds it.
            let transaction = database.begin_write()?;
            transaction.open_table(definition(table))?;
            transaction.commit()?;
            let mut rows = Vec::new();
            for entry in database
                .begin_read()?
                .open_table(definition(table))?
                .iter()?
            {
                rows.push(entry?.1.value().to_vec());
            }
            Ok(rows)
        };
        let rows = disk.read(read).map_err(|error| unreadable(&error))?;
        rows.iter()
            .map(|row| serde_json::from_slice(row).map_err(|error| unreadable(&error)))
            .collect()
    }

    /// Forgets a row.
    pub(crate) fn remove(&self, table: Table, key: &str) -> Result<(), String> {
        self.remove_all(table, [key].into_iter())
    }

    /// Forgets rows, all or none.
    pub(crate) fn remove_all<'r>(
        &self,
        table: Table,
        keys: impl Iterator<Item = &'r str>,
    ) -> Result<(), String> {
        let Self::Disk(disk) = self else {
            return Ok(());
        };
        disk.change(keys.map(|key| ((table, key.to_owned()), None)))
    }

    /// Keeps a row.
    pub(crate) fn put(
        &self,
        table: Table,
        key: &str,
        value: &impl Serialize,
    ) -> Result<(), String> {
        self.put_all(table, [(key, value)].into_iter())
    }

    /// Keeps rows, all or none.
    pub(crate) fn put_all<'r>(
        &self,
        table: Table,
        rows: impl Iterator<Item = (&'r str, &'r (impl Serialize + 'r))>,
    ) -> Result<(), String> {
        self.write(|| Ok([(table, written(rows)?)]))
    }

    /// Keeps devices, and rows of another table, all or none.
    pub(crate) fn put_devices_and<'r>(
        &self,
        devices: impl Iterator<Item = &'r Device>,
        table: Table,
        rows: impl Iterator<Item = (&'r str, &'r (impl Serialize + 'r))>,
    ) -> Result<(), String> {
        let devices = devices.map(|device| (device.identity.device_id.as_str(), device));
        self.write(|| Ok([(DEVICES, written(devices)?), (table, written(rows)?)]))
    }

    /// Writes what `tables` gives, all or none.
    fn write<'r, const N: usize>(
        &self,
        tables: impl FnOnce() -> Result<[(Table, Rows<'r>); N], serde_json::Error>,
    ) -> Result<(), String> {
        let Self::Disk(disk) = self else {
            return Ok(());
        };
        let tables = tables().map_err(|error| error.to_string())?;
        let rows = tables.into_iter().flat_map(|(table, rows)| {
            rows.into_iter()
                .map(move |(key, bytes)| ((table, key.to_owned()), Some(bytes)))
        });
        disk.change(rows)
    }

    /// From now on changes are written on a thread of the store's own, many in one go: they are durable when
    /// [`Durable::now`] has said so.
    pub(crate) fn write_behind(&mut self) -> Result<Durable, Error> {
        match self {
            Self::Memory => Ok(Durable::default()),
            Self::Disk(disk) => disk.write_behind(),
        }
    }
}

fn definition(table: Table) -> TableDefinition<'static, &'static str, &'static [u8]> {
    TableDefinition::new(table)
}

/// Rows as they are written.
type Rows<'r> = Vec<(&'r str, Vec<u8>)>;

fn written<'r>(
    rows: impl Iterator<Item = (&'r str, &'r (impl Serialize + 'r))>,
) -> Result<Rows<'r>, serde_json::Error> {
    rows.map(|(key, value)| Ok((key, serde_json::to_vec(value)?)))
        .collect()
}

fn unreadable(error: &dyn Display) -> Error {
    Error::State {
        path: PathBuf::from("hub.redb"),
        reason: format!("cannot be read: {error}; move it away to begin with an empty hub"),
    }
}

fn create_private(directory: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

fn open_private(file: &Path) -> std::io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn device(id: &str) -> Device {
        Device {
            identity: Identity::new(id, 1).unwrap(),
            twin: Twin::new(),
            subscriptions: None,
            assignment: Assignment::default(),
        }
    }

    #[test]
    fn what_was_put_is_there_after_opening_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/state");
        let store = Store::open(&path).unwrap();
        assert!(store.load().unwrap().0.is_none());
        let mut kept = device("a");
        kept.twin.patch_reported(&json!({"x": {"y": 1}})).unwrap();
        kept.subscriptions = Some([("$iothub/methods/POST/#".to_owned(), 1)].into());
        let policies: Policies = [("iothubowner".to_owned(), Keys::random().unwrap())].into();
        store.put_policies(&policies).unwrap();
        store.put_device(&kept).unwrap();
        store.put_device(&device("b")).unwrap();
        store.remove_device("b").unwrap();
        // As after a kill: the file is copied while the database is open and was never closed.
        let copy = directory.path().join("copy");
        create_private(&copy).unwrap();
        fs::copy(path.join("hub.redb"), copy.join("hub.redb")).unwrap();

        let (again, devices) = Store::open(&copy).unwrap().load().unwrap();
        assert!(again.unwrap() == policies);
        assert_eq!(devices.len(), 1);
        assert_eq!(
            serde_json::to_value(&devices[0]).unwrap(),
            serde_json::to_value(&kept).unwrap()
        );
    }

    #[tokio::test]
    async fn what_is_written_behind_is_durable_when_it_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let mut store = Store::open(&path).unwrap();
        let durable = store.write_behind().unwrap();
        durable.now().await.unwrap();
        for round in 0..20 {
            let ids: Vec<_> = (0..50).map(|n| format!("{round}-{n}")).collect();
            for id in &ids {
                store.put_device(&device(id)).unwrap();
            }
            store.remove_device(&ids[0]).unwrap();
            durable.now().await.unwrap();
            let copy = directory.path().join(format!("copy-{round}"));
            create_private(&copy).unwrap();
            fs::copy(path.join("hub.redb"), copy.join("hub.redb")).unwrap();
            let (_, devices) = Store::open(&copy).unwrap().load().unwrap();
            assert_eq!(devices.len(), (round + 1) * 49);
        }
        // A clean end writes what nobody has waited for.
        store.put_device(&device("last")).unwrap();
        drop(durable);
        drop(store);
        let (_, devices) = Store::open(&path).unwrap().load().unwrap();
        assert!(
            devices
                .iter()
                .any(|device| device.identity.device_id == "last")
        );
    }

    #[test]
    fn a_directory_in_use_and_a_broken_database_say_so() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let error = Store::open(directory.path()).err().unwrap().to_string();
        assert!(error.contains("in use by another hub"), "{error}");
        drop(store);
        fs::write(directory.path().join("hub.redb"), "not a database at all").unwrap();
        let error = Store::open(directory.path()).err().unwrap().to_string();
        assert!(
            error.contains("hub.redb") && error.contains("move it away"),
            "{error}"
        );
    }
}
