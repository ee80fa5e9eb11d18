//! The target's own knowledge for Python, as `nvlane._native`: conversion only, no policy and no state.

use pyo3::prelude::*;

/// What `nvlane._native` holds; `src/nvlane/_native.pyi` is its typed description.
#[pymodule]
mod _native {
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}
