//! What a configuration's metrics count. They are computed when they are read.

use super::{Assignment, Configuration};
use crate::query::{Document, Groups};
use serde_json::{Map, Value, json};

/// Counts devices for a configuration's metrics.
pub(crate) struct Counter<'c> {
    configuration: &'c Configuration,
    /// Where a twin has the configuration's status.
    status: [String; 3],
    targeted: u64,
    applied: u64,
    metrics: Vec<Metric<'c>>,
}

enum Metric<'c> {
    Rows(u64),
    Groups(Groups<'c>),
}

impl<'c> Counter<'c> {
    pub(crate) fn new(configuration: &'c Configuration) -> Self {
        Self {
            configuration,
            status: ["configurations", &configuration.definition.id, "status"].map(str::to_owned),
            targeted: 0,
            applied: 0,
            metrics: configuration
                .metrics
                .iter()
                .map(|(_, query)| match query.is_grouped() {
                    true => Metric::Groups(query.groups()),
                    false => Metric::Rows(0),
                })
                .collect(),
        }
    }

    /// Counts a device's twin.
    pub(crate) fn add(&mut self, twin: &dyn Document) {
        if let Some(status) = twin.value(&self.status) {
            self.targeted += 1;
            self.applied += u64::from(*status == Assignment::status(true));
        }
        for (metric, (_, query)) in self.metrics.iter_mut().zip(&self.configuration.metrics) {
            if query.matches(twin) {
                match metric {
                    Metric::Rows(rows) => *rows += 1,
                    Metric::Groups(groups) => groups.add(twin),
                }
            }
        }
    }

    /// The configuration with what was counted: a metric is how many rows its query has.
    pub(crate) fn shown(self) -> Value {
        let etag = self.configuration.etag();
        let definition = &self.configuration.definition;
        let results: Map<String, Value> = self
            .metrics
            .into_iter()
            .zip(&self.configuration.metrics)
            .map(|(metric, (name, query))| {
                let rows = match metric {
                    Metric::Rows(rows) => rows,
                    Metric::Groups(groups) => groups.rows().count() as u64,
                };
                (name.clone(), rows.min(query.top().unwrap_or(rows)).into())
            })
            .collect();
        let targeted = match definition.target_condition.trim() {
            "" => String::new(),
            "*" => "select deviceId from devices".to_owned(),
            condition => format!("select deviceId from devices where {condition}"),
        };
        json!({
            "id": definition.id,
            "schemaVersion": definition.schema_version,
            "labels": definition.labels,
            "content": {"deviceContent": definition.device_content},
            "targetCondition": definition.target_condition,
            "createdTimeUtc": definition.created,
            "lastUpdatedTimeUtc": definition.updated,
            "priority": definition.priority,
            "systemMetrics": {
                "results": {"targetedCount": self.targeted, "appliedCount": self.applied},
                "queries": {
                    "targetedCount": targeted,
                    "appliedCount": format!(
                        "select deviceId from devices where configurations.[[{}]].status = 'Applied'",
                        definition.id
                    ),
                },
            },
            "metrics": {"results": results, "queries": definition.metrics},
            "etag": etag,
        })
    }
}
