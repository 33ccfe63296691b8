use super::types::Config;

impl Config {
    /// The settings that a reload cannot change, because running jails, their recordings or the roles' uids hang on
    /// them; empty if `new` may come into force. With any, the old configuration stays and stockade must be restarted.
    pub fn fixed_against(&self, new: &Self) -> Vec<&'static str> {
        // Of `[ssh]` only `linger` is the warden's; the rest is the gate's, whose connections would see two rules.
        let ssh = |config: &Self| super::types::Ssh { linger: self.ssh.linger, ..config.ssh.clone() };
        let door = |config: &Self| config.aws.as_ref().map(|aws| (aws.imds_v1, aws.region.clone()));
        let settings = [
            ("listen", self.listen != new.listen),
            ("ssh", ssh(self) != ssh(new)),
            ("aws.region or aws.imds_v1, or whether there is [aws]", door(self) != door(new)),
            ("jail.uid_base", self.jail.uid_base != new.jail.uid_base),
            ("jail.max_jails", self.jail.max_jails != new.jail.max_jails),
            ("recording", self.recording != new.recording),
            ("audit.file", self.audit.file != new.audit.file),
            ("state.directory", self.state.directory != new.state.directory),
            ("roles", self.roles != new.roles),
        ];
        settings.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}
