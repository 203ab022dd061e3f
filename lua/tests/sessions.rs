//! Conversations: chunk after chunk in one Lua.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vmoon_core::guest::GuestImages;
use vmoon_core::vm::Host;
use vmoon_lua::{Config, Ending, Evaluation, Runtime, Script, Session, Signals};

fn runtime() -> Runtime {
    let host = Host::new(Vec::new(), GuestImages { micro: None, agent: &[] });
    let timeout = Some(Duration::from_mins(1));
    let signals = Some(Signals::default());
    Runtime::new(Config { host, backend: None, timeout, signals, tests: None }).unwrap()
}

fn converse(talk: impl AsyncFnOnce(Session)) -> Ending {
    runtime().converse(&Script::code("", Vec::new()), talk).unwrap()
}

/// The values of a chunk.
async fn values(session: &Session, text: &str) -> Vec<String> {
    match session.evaluate(text).await {
        Evaluation::Values(values) => values,
        Evaluation::Raised(reports) => panic!("{text}: {}", reports[0]),
        Evaluation::Interrupted => panic!("{text}: interrupted"),
    }
}

async fn raised(session: &Session, text: &str) -> String {
    match session.evaluate(text).await {
        Evaluation::Raised(reports) => reports[0].to_string(),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn expressions_have_values_and_globals_stay() {
    let ending = converse(async |session| {
        assert_eq!(values(&session, "1 + 1, 'x'").await, ["2", "\"x\""]);
        assert!(values(&session, "x = { b = 1, a = 2 }").await.is_empty());
        assert_eq!(values(&session, "x").await, ["{ a = 2, b = 1 }"]);
        assert!(values(&session, "local y = 1").await.is_empty());
        assert_eq!(values(&session, "y").await, ["nil"]);
        assert_eq!(values(&session, "vmoon.sleep '1ms'").await, [""; 0]);
    });
    assert!(matches!(ending, Ending::Done), "{ending:?}");
}

#[test]
fn errors_are_pictures_and_the_conversation_goes_on() {
    converse(async |session| {
        assert_eq!(
            raised(&session, "local t = nil\nreturn t.x").await,
            "error: attempt to index a nil value (local 't')\n  ┌ (input 1):2\n2 │ return t.x\n  │        ^"
        );
        assert!(raised(&session, "x = = 1").await.contains("unexpected symbol near '='"));
        assert!(raised(&session, "'open").await.contains("unfinished string"));
        assert!(raised(&session, "vmoon.boot { cpuz = 1 }").await.contains("did you mean 'cpus'?"));
        assert_eq!(values(&session, "'fine'").await, ["\"fine\""]);
    });
}

#[test]
fn an_interruption_ends_the_chunk_and_no_more() {
    let ending = converse(async |session| {
        let interruption = session.interruption();
        for text in [
            "while true do end",
            "while true do pcall(function() while true do end end) end",
            "local guard <close> = setmetatable({}, { __close = function() closed = true end })
             while true do end",
        ] {
            let flag = interruption.clone();
            let press = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                flag.store(true, Ordering::Relaxed);
            });
            let evaluation = session.evaluate(text).await;
            assert!(matches!(evaluation, Evaluation::Interrupted), "{text}: {evaluation:?}");
            press.join().unwrap();
            assert_eq!(
                values(
                    &session,
                    "(function() local n = 0 for i = 1, 1e6 do n = n + 1 end return n end)()"
                )
                .await,
                ["1000000"]
            );
        }
        assert_eq!(values(&session, "closed").await, ["true"]);
    });
    assert!(matches!(ending, Ending::Done), "{ending:?}");
}

#[test]
fn leaving_and_its_status() {
    let ending = converse(async |session| {
        session.evaluate("os.exit(7)").await;
        unreachable!("the conversation has ended");
    });
    assert!(matches!(ending, Ending::Exited(7)), "{ending:?}");
}

#[test]
fn errors_of_tasks_are_told_once() {
    converse(async |session| {
        values(&session, "vmoon.task.spawn(function() error 'alone' end)").await;
        values(&session, "vmoon.sleep '5ms'").await;
        let reports = session.unseen();
        assert!(reports.len() == 1 && reports[0].message.contains("alone"), "{reports:?}");
        assert!(session.unseen().is_empty());
    });
}

#[test]
fn names_are_completed() {
    converse(async |session| {
        assert_eq!(session.complete("vmoon.ba"), ["backends"]);
        assert_eq!(session.complete("print(vmoon.task.sp"), ["spawn"]);
        assert_eq!(session.complete("whi"), ["while"]);
        values(&session, "task = vmoon.task.spawn(function() end)").await;
        assert_eq!(session.complete("task:"), ["cancel", "join"]);
        values(&session, "s = 'text'").await;
        assert_eq!(session.complete("s:up"), ["upper"]);
        values(&session, "own = setmetatable({ a = 1 }, { __index = { be = print } })").await;
        assert_eq!(session.complete("own."), ["a", "be"]);
        assert_eq!(session.complete("own:"), ["be"]);
        assert!(session.complete("nothing.at.all").is_empty());
        let called = "setmetatable({}, { __index = function() called = true end })";
        values(&session, &format!("trap = {called}")).await;
        session.complete("trap.x.y");
        assert_eq!(values(&session, "called").await, ["nil"]);
    });
}

#[test]
fn help_knows_values_and_names() {
    converse(async |session| {
        values(&session, "function print(text) said = text end").await;
        for (call, expected) in [
            ("help()", "vmoon.boot(spec?) -> Vm"),
            ("help(vmoon.boot)", "vmoon.boot(spec?) -> Vm"),
            ("help 'vm:exec'", "vm:exec(cmd, opts?) -> ExecResult"),
            ("help(vmoon.task.spawn)", "Starts a task"),
            ("help(vmoon.task.spawn(print))", "task:join()"),
            ("help(vmoon.task)", "vmoon.task.map"),
            ("help 'vm:exce'", "did you mean \"vm:exec\"?"),
            ("help(print)", "nothing is documented of this function"),
        ] {
            values(&session, call).await;
            let said = values(&session, "said").await.join("");
            assert!(
                said.contains(&expected.replace('"', "\\\"")) || said.contains(expected),
                "{call}: {said}"
            );
        }
    });
}

#[test]
fn a_script_holds_a_conversation_with_values_at_hand() {
    let told = Rc::new(RefCell::new(Vec::new()));
    let mut runtime = runtime();
    let heard = told.clone();
    runtime.define_conversation("talk", move |session| {
        let heard = heard.clone();
        async move {
            let said = values(&session, "vm, kept").await;
            heard.borrow_mut().extend(said);
            values(&session, "kept = 2").await;
        }
    });
    let code = "vm, kept = 'before', 1
        talk { vm = 'the failing one' }
        assert(vm == 'before' and kept == 2 and help == nil)";
    let ending = runtime.run(&Script::code(code, Vec::new())).unwrap();
    assert!(matches!(ending, Ending::Done), "{ending:?}");
    assert_eq!(*told.borrow(), ["\"the failing one\"", "1"]);
}
