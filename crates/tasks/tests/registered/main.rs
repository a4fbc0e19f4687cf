//! What every task of a build must satisfy, yours included. What a task may be asked beyond that, such as what its
//! prompt says, is a matter of whoever owns it: Nightshift's own tasks have their tests in `../tasks`.

#[cfg(test)]
mod broken_tasks;
#[cfg(test)]
mod rules;

#[test]
fn every_task_of_this_build_keeps_the_rules() {
    let broken = rules::broken(&my_tasks::registry());
    assert!(broken.is_empty(), "\n\n{}\n\n", broken.join("\n"));
}
