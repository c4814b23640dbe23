//! Everything that changes what serves. Each call answers with the updates of one deployment; a client that goes away
//! detaches, the deployment goes on.

use std::pin::Pin;
use std::sync::Arc;

use refloat_model::DeploymentId;
use refloat_proto::v1::deployment_service_server::DeploymentService;
use refloat_proto::v1::{
    ActivateRequest, CancelRequest, CancelResponse, ChangeEnvRequest, DeployRequest, DeploymentEvent, DestroyRequest,
    Mutation, RestartRequest, RollbackRequest, SetDomainsRequest, StopRequest, WatchRequest,
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::port::Updates;
use super::{Ports, convert, gate, status};
use crate::deploy::request::Ask;

type Events = Pin<Box<dyn Stream<Item = Result<DeploymentEvent, Status>> + Send>>;

/// The service.
#[derive(Debug)]
pub struct DeploymentApi {
    ports: Arc<Ports>,
}

impl DeploymentApi {
    /// The service over these ports.
    #[must_use]
    pub fn new(ports: Arc<Ports>) -> Self {
        Self { ports }
    }

    async fn submit(
        &self,
        caller: Result<refloat_model::Principal, Status>,
        mutation: Option<Mutation>,
        app: &str,
        ask: Result<Ask, Status>,
    ) -> Result<Response<Events>, Status> {
        let submit = convert::submit(mutation, app, ask?, &caller?)?;
        let updates = self.ports.deployments.submit(submit).await.map_err(status::denied)?;
        Ok(events(updates))
    }
}

fn events(updates: Updates) -> Response<Events> {
    Response::new(Box::pin(updates.map(|numbered| Ok(convert::event(numbered)))))
}

fn who<T>(request: &Request<T>) -> Result<refloat_model::Principal, Status> {
    gate::known(request).map(|known| known.principal.clone())
}

fn release(number: u32) -> Result<refloat_model::ReleaseNumber, Status> {
    convert::release(number).ok_or_else(|| status::invalid("no release was named"))
}

#[tonic::async_trait]
impl DeploymentService for DeploymentApi {
    type DeployStream = Events;
    type RollbackStream = Events;
    type ActivateStream = Events;
    type RestartStream = Events;
    type StopStream = Events;
    type DestroyStream = Events;
    type SetDomainsStream = Events;
    type ChangeEnvStream = Events;
    type WatchStream = Events;

    async fn deploy(&self, request: Request<DeployRequest>) -> Result<Response<Events>, Status> {
        let by = who(&request);
        let mut it = request.into_inner();
        let ask = convert::deploy(&mut it);
        self.submit(by, it.mutation, &it.app, ask).await
    }

    async fn rollback(&self, request: Request<RollbackRequest>) -> Result<Response<Events>, Status> {
        let by = who(&request);
        let it = request.into_inner();
        let ask = Ask::Rollback { to: convert::release(it.to), code: it.code, dry_run: it.dry_run };
        self.submit(by, it.mutation, &it.app, Ok(ask)).await
    }

    async fn activate(&self, request: Request<ActivateRequest>) -> Result<Response<Events>, Status> {
        let by = who(&request);
        let it = request.into_inner();
        let ask = release(it.release).map(Ask::Activate);
        self.submit(by, it.mutation, &it.app, ask).await
    }

    async fn restart(&self, request: Request<RestartRequest>) -> Result<Response<Events>, Status> {
        let by = who(&request);
        let it = request.into_inner();
        self.submit(by, it.mutation, &it.app, Ok(Ask::Restart)).await
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<Events>, Status> {
        let by = who(&request);
        let it = request.into_inner();
        self.submit(by, it.mutation, &it.app, Ok(Ask::Stop)).await
    }

    async fn destroy(&self, request: Request<DestroyRequest>) -> Result<Response<Events>, Status> {
        let by = who(&request);
        let it = request.into_inner();
        // "The only app" is for what can be undone.
        let named = if it.app.is_empty() { Err(status::invalid("name the app that is to go")) } else { Ok(()) };
        let ask = named.map(|()| Ask::Destroy { volumes: it.volumes, dry_run: it.dry_run });
        self.submit(by, it.mutation, &it.app, ask).await
    }

    async fn set_domains(&self, request: Request<SetDomainsRequest>) -> Result<Response<Events>, Status> {
        let by = who(&request);
        let it = request.into_inner();
        let ask = convert::domains(&it.add, &it.remove);
        self.submit(by, it.mutation, &it.app, ask).await
    }

    async fn change_env(&self, request: Request<ChangeEnvRequest>) -> Result<Response<Events>, Status> {
        let by = who(&request);
        let it = request.into_inner();
        let ask = convert::env(it.set, it.unset, it.no_deploy);
        self.submit(by, it.mutation, &it.app, ask).await
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Events>, Status> {
        let WatchRequest { deployment, app } = request.into_inner();
        let updates = if deployment.is_empty() {
            let app = convert::app(&app)?.ok_or_else(|| status::invalid("name a deployment or an app"))?;
            self.ports.deployments.watch_app(&app).await
        } else {
            let id = DeploymentId::parse(&deployment).ok_or_else(|| status::invalid("that is no deployment's id"))?;
            self.ports.deployments.watch(id).await
        };
        let missing = || status::not_found("NO_SUCH_DEPLOYMENT", "There is no such deployment.", "refloat status");
        updates.map(events).ok_or_else(missing)
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Result<Response<CancelResponse>, Status> {
        let by = who(&request)?;
        let it = request.into_inner();
        convert::mutation(it.mutation)?;
        let app = convert::app(&it.app)?;
        let cancelled = self.ports.deployments.cancel(app.as_ref(), &by).await.map_err(status::denied)?;
        let Some(id) = cancelled else {
            return Ok(Response::new(CancelResponse::default()));
        };
        let record = self.ports.journal.deployment(&id).await.map_err(|error| status::journal(&error))?;
        let kind = record.map(|record| record.deployment.action.kind().to_owned()).unwrap_or_default();
        Ok(Response::new(CancelResponse { deployment: id.to_string(), kind }))
    }
}
