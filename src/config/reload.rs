use super::types::Config;

impl Config {
    /// The settings that a reload cannot change, because running jails, their recordings or the roles' uids hang on
    /// them; empty if `new` may come into force. With any, the old configuration stays and stockade must be restarted.
    pub fn fixed_against(&self, new: &Self) -> Vec<&'static str> {
        let settings = [
            ("jail.uid_base", self.jail.uid_base != new.jail.uid_base),
            ("jail.max_jails", self.jail.max_jails != new.jail.max_jails),
            ("recording.directory", self.recording.directory != new.recording.directory),
            ("audit.file", self.audit.file != new.audit.file),
            ("state.directory", self.state.directory != new.state.directory),
            ("roles", self.roles != new.roles),
        ];
        settings.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}
