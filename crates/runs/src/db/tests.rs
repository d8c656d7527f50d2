//! Tests of `run.db`: every table round trips, resume takes back, older and newer files.

use serde_json::json;

use super::*;

fn open() -> (tempfile::TempDir, RunDb) {
    let dir = tempfile::tempdir().unwrap();
    let db = RunDb::open(dir.path().join("run.db")).unwrap();
    (dir, db)
}

fn rollout(step: u64, completion: &str) -> RolloutRecord {
    RolloutRecord {
        step,
        prompt: "p'; DROP TABLE rollouts; --".into(),
        completion: completion.into(),
        rewards: [("zeta", Some(1.0)), ("accuracy", None)].into_iter().collect(),
        advantage: Some(-1.5),
        verdict: RolloutVerdict::Correct,
        tokens: 12,
        finished: true,
    }
}

#[test]
fn stages_keep_their_order_and_change_in_place() {
    let (_dir, mut db) = open();
    let stage = |name: &str, status, finished| StageRow {
        name: name.into(),
        kind: "grpo".into(),
        status,
        hash: "abc".into(),
        started: Some(10.5),
        finished,
        wall_s: 2.0,
    };
    db.put_stage(&stage("zero", StageStatus::Running, None)).unwrap();
    db.put_stage(&stage("base", StageStatus::Failed, None)).unwrap();
    db.put_stage(&stage("zero", StageStatus::Finished, Some(20.0))).unwrap();
    let zero = stage("zero", StageStatus::Finished, Some(20.0));
    assert_eq!(db.stages().unwrap(), [zero.clone(), stage("base", StageStatus::Failed, None)]);
    assert_eq!(db.stage("zero").unwrap(), Some(zero));
    assert_eq!(db.stage("other").unwrap(), None);
}

#[test]
fn steps_round_trip_and_a_doubled_step_adds_nothing() {
    let (_dir, mut db) = open();
    let rollouts = [rollout(1, "one"), rollout(1, "two")];
    db.add_step("rl", 1, &[("reward", 0.5), ("kl", f64::NAN)], &rollouts).unwrap();
    assert!(db.add_step("rl", 1, &[("other", 1.0), ("reward", 0.7)], &rollouts).is_err());
    db.add_step("rl", 2, &[("reward", f64::INFINITY)], &[]).unwrap();
    db.add_step("sft", 1, &[("reward", 9.0)], &[]).unwrap();
    assert_eq!(db.metric("rl", "reward").unwrap(), [(1, Some(0.5)), (2, None)]);
    assert_eq!(db.metric("rl", "kl").unwrap(), [(1, None)]);
    assert_eq!(db.metric_names("rl").unwrap(), ["kl", "reward"]);
    assert_eq!(db.rollouts("rl", 1).unwrap(), rollouts);
    assert_eq!(db.rollouts("rl", 2).unwrap(), []);
}

#[test]
fn rewinding_takes_back_one_stage_to_a_step() {
    let (_dir, mut db) = open();
    for step in 0..=4 {
        db.add_step("rl", step, &[("reward", step as f64)], &[rollout(step, "x")]).unwrap();
        db.add_step("sft", step, &[("reward", step as f64)], &[]).unwrap();
    }
    db.rewind("rl", Some(2)).unwrap();
    assert_eq!(db.metric("rl", "reward").unwrap().len(), 3);
    assert_eq!((db.rollouts("rl", 2).unwrap().len(), db.rollouts("rl", 3).unwrap().len()), (1, 0));
    db.add_step("rl", 3, &[("reward", 3.0)], &[]).unwrap();
    db.rewind("rl", None).unwrap();
    assert_eq!(db.metric("rl", "reward").unwrap(), []);
    assert_eq!(db.metric("sft", "reward").unwrap().len(), 5);
}

#[test]
fn evaluations_take_a_whole_summary() {
    let (_dir, mut db) = open();
    let summary =
        json!({"problems": 3, "pass_at_1": 0.5, "pass_at_16": null, "by_family": {"chain": {"pass_at_1": 1.0}}});
    db.put_evaluation_summary("base", &json!({"problems": 2})).unwrap();
    db.put_evaluation_summary("base", &summary).unwrap();
    let rows = db.evaluations().unwrap();
    let values: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.value)).collect();
    assert_eq!(values, [("problems", Some(3.0)), ("pass_at_1", Some(0.5)), ("pass_at_16", None), ("by_family", None)]);
    assert_eq!(rows[3].json, Some(json!({"chain": {"pass_at_1": 1.0}})));
}

#[test]
fn annotations_go_through_their_states() {
    let (_dir, mut db) = open();
    let ids = db.add_candidates("cold", &[json!({"text": "a"}), json!("b")], 1.0).unwrap();
    db.add_candidates("other", &[json!(0)], 1.0).unwrap();
    db.annotate(ids[0], AnnotationState::Edited, "shorter", Some(&json!({"text": "A"})), 2.0).unwrap();
    db.annotate(ids[1], AnnotationState::Rejected, "", Some(&json!("ignored")), 3.0).unwrap();
    let all = db.annotations("cold", None).unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(
        all[0],
        Annotation {
            id: ids[0],
            stage: "cold".into(),
            candidate: json!({"text": "a"}),
            edited: Some(json!({"text": "A"})),
            state: AnnotationState::Edited,
            note: "shorter".into(),
            created: 1.0,
            updated: 2.0,
        }
    );
    assert_eq!(all[1].edited, None);
    assert_eq!(db.annotations("cold", Some(AnnotationState::New)).unwrap(), []);
    assert_eq!(db.annotations("cold", Some(AnnotationState::Rejected)).unwrap(), [all[1].clone()]);
    let error = db.annotate(99, AnnotationState::Accepted, "", None, 4.0).unwrap_err().to_string();
    assert!(error.contains("annotation 99"), "{error}");
}

#[test]
fn events_are_read_from_where_a_page_left_off() {
    let (_dir, mut db) = open();
    for text in ["a", "b", "c"] {
        db.add_event(5.0, &Event::Note { stage: String::new(), text: text.into() }).unwrap();
    }
    let first = db.events_after(0, 2).unwrap();
    assert_eq!(first.len(), 2);
    let rest = db.events_after(first[1].0, usize::MAX).unwrap();
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].2["text"], "c");
}

#[test]
fn it_survives_reopening_and_reads_beside_a_writer() {
    let (dir, mut db) = open();
    db.add_step("rl", 1, &[("reward", 0.5)], &[]).unwrap();
    let path = dir.path().join("run.db");
    let reader = RunDb::open_read_only(&path).unwrap();
    assert_eq!(reader.metric("rl", "reward").unwrap(), [(1, Some(0.5))]);
    db.add_step("rl", 2, &[("reward", 0.75)], &[]).unwrap();
    assert_eq!(reader.metric("rl", "reward").unwrap().len(), 2);
    let mode: String = db.run(|c| c.pragma_query_value(None, "journal_mode", |row| row.get(0))).unwrap();
    assert_eq!(mode, "wal");
    drop((db, reader));
    assert_eq!(RunDb::open(&path).unwrap().metric("rl", "reward").unwrap().len(), 2);
}

#[test]
fn newer_and_foreign_files_are_refused() {
    let (dir, db) = open();
    db.run(|c| c.pragma_update(None, "user_version", 99)).unwrap();
    drop(db);
    let path = dir.path().join("run.db");
    for opened in [RunDb::open(&path), RunDb::open_read_only(&path)] {
        let message = opened.unwrap_err().to_string();
        assert!(message.contains("schema version 99") && message.contains("run.db"), "{message}");
    }
    let text = dir.path().join("text.db");
    std::fs::write(&text, "this is not a database, it is a sentence of some length".repeat(20)).unwrap();
    let message = RunDb::open(&text).unwrap_err().to_string();
    assert!(message.contains("text.db"), "{message}");
    assert!(RunDb::open_read_only(dir.path().join("missing.db")).is_err());
}
