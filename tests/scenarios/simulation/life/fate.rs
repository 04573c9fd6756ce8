//! What befalls a node: the plan is carried out when its time has come, on the world and on the
//! agent, and the weather is noted.

use jiff::SignedDuration;
use serde_json::json;

use super::super::faults::{CERTIFICATES, leaves_vault_to_its_administrator};
use super::super::schedule::{Blow, Change, Fault};
use super::super::weather::{recovery, recovery_from};
use super::Life;

/// What cannot be done while Vault is away is done this much later.
const LATER: SignedDuration = SignedDuration::from_hours(1);

impl Life {
    /// Everything that the plan says for now or before.
    pub(super) async fn fate(&mut self) -> Result<(), String> {
        while let Some((_, change)) = self.plan.pop_front_if(|(at, _)| *at <= self.world.now()) {
            if self.needs_vault(change) {
                self.postpone(change);
                continue;
            }
            self.tell(format!("{change:?}"));
            self.touched();
            match change {
                Change::Begin(fault) => self.begin(fault).await?,
                Change::End(fault) => self.end(fault).await?,
                Change::Blow(blow) => self.blow(blow).await?,
            }
            self.world.model.server().clear_log();
        }
        Ok(())
    }

    /// Whether this is a change that nobody can make now.
    fn needs_vault(&self, change: Change) -> bool {
        let Some(fault) = &self.ledger.weather.fault else { return false };
        let of_administrator = matches!(
            change,
            Change::Blow(
                Blow::EntryDeleted
                    | Blow::TokenRevoked
                    | Blow::AuthorityAdded
                    | Blow::AuthorityChanged
                    | Blow::AuthorityDropped
                    | Blow::RecordsTorn
                    | Blow::Replaced
                    | Blow::Reboot
            )
        );
        of_administrator && !leaves_vault_to_its_administrator(fault)
            || matches!(fault, Fault::Stopped) && matches!(change, Change::Blow(_))
            // What is wrong with a machine would be wrong with its successor.
            || change == Change::Blow(Blow::Replaced)
    }

    fn postpone(&mut self, change: Change) {
        let at = self.world.now() + LATER;
        let place = self.plan.partition_point(|(other, _)| *other <= at);
        self.plan.insert(place, (at, change));
    }

    async fn begin(&mut self, fault: Fault) -> Result<(), String> {
        let now = self.world.now();
        if matches!(fault, Fault::DiskFull | Fault::DiskReadOnly) && !self.world.disk.has_faults() {
            return Ok(());
        }
        self.ledger.weather.foul(now, fault);
        match fault {
            Fault::ClockStep(_) => self.ledger.excuse_the_budget(now),
            Fault::Foreign => drop(self.ledger.torn.insert(CERTIFICATES[0])),
            Fault::Stopped => self.agent = None,
            _ => {}
        }
        self.kept = self.world.begin(fault).await?;
        Ok(())
    }

    async fn end(&mut self, fault: Fault) -> Result<(), String> {
        if self.ledger.weather.fault != Some(fault) {
            return Ok(());
        }
        let kept = self.kept.take();
        self.world.end(fault, kept).await?;
        let now = self.world.now();
        self.ledger.weather.fair(now, recovery(&fault));
        match fault {
            Fault::ClockStep(_) => self.ledger.excuse_the_budget(now),
            Fault::Stopped => self.boot()?,
            _ => {}
        }
        Ok(())
    }

    async fn blow(&mut self, blow: Blow) -> Result<(), String> {
        let now = self.world.now();
        self.world.strike(blow, &mut self.random).await?;
        match blow {
            Blow::Restart => self.start()?,
            Blow::KillAt(place) => self.world.clock.kill.arm(Some(place)),
            Blow::Reboot => self.boot()?,
            Blow::Replaced => {
                self.ledger.replaced(&self.world);
                self.start()?;
            }
            Blow::TokenRevoked => self.revoke().await?,
            Blow::Torn | Blow::Unlinked | Blow::LinkLost => self.ledger.torn.extend(CERTIFICATES),
            Blow::RecordsTorn => {
                self.ledger.excuse_the_budget(now);
                self.ledger.forgive_acts(&self.world);
                self.start()?;
            }
            _ => {}
        }
        // In foul weather a blow changes nothing; in fair weather the recovery begins anew.
        if self.ledger.weather.fault.is_none() {
            self.ledger.weather.fair(now, recovery_from(blow));
        }
        Ok(())
    }

    /// The machine boots: what is in memory and in /run is gone.
    fn boot(&mut self) -> Result<(), String> {
        self.world.units.go_down();
        std::fs::remove_dir_all(self.world.path("run/nodeagent")).ok();
        self.world.clock.boot();
        self.start()
    }

    async fn revoke(&mut self) -> Result<(), String> {
        if let Some((session, _)) = self.node.session.get() {
            let body = json!({ "token": session.token.expose() });
            self.world.admin.write("auth/token/revoke", &body).await?;
        }
        Ok(())
    }
}
