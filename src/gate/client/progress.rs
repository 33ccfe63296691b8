use std::sync::atomic::{AtomicBool, Ordering};

/// How far a client got: for when it is gone.
#[derive(Debug, Default)]
pub struct Progress {
    tried: AtomicBool,
    acceptable: AtomicBool,
    excused: AtomicBool,
    inside: AtomicBool,
}

impl Progress {
    /// `acceptable`: a key was offered that would do, if it is proved.
    pub fn answered(&self, acceptable: bool) {
        self.acceptable.store(acceptable, Ordering::Relaxed);
    }

    /// A key was offered, any key.
    pub fn tries(&self) {
        self.tried.store(true, Ordering::Relaxed);
    }

    /// What went wrong was the bastion's.
    pub fn excuse(&self) {
        self.excused.store(true, Ordering::Relaxed);
    }

    pub fn enters(&self) {
        self.inside.store(true, Ordering::Relaxed);
    }

    pub fn has_tried(&self) -> bool {
        self.tried.load(Ordering::Relaxed)
    }

    /// The last thing it did was to offer what would do: nobody else has a line about that.
    pub fn is_unproved(&self) -> bool {
        self.acceptable.load(Ordering::Relaxed)
    }

    pub fn is_excused(&self) -> bool {
        self.excused.load(Ordering::Relaxed)
    }

    pub fn is_in(&self) -> bool {
        self.inside.load(Ordering::Relaxed)
    }
}
