//! The `schedulemesh` command.

fn main() -> std::process::ExitCode {
    mesh_cli::main()
}
